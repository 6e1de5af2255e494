"""When to look at a file, and what to believe."""

from __future__ import annotations

import pytest

from budao.model import BadSettings, Mono
from budao.settings import Content, Effect, Look, Read, Report, Signature, Tell, Unreadable, Watch


class File:
    """A pretend file and a clock that is moved by hand."""

    def __init__(self, watch: Watch, raw: bytes | None = b"old") -> None:
        self.watch = watch
        self.raw = raw
        self.mark = 0
        self.now = 0.0
        self.reads = 0
        self.is_steady = True

    def write(self, raw: bytes | None, *, unseen: bool = False) -> None:
        self.raw = raw
        self.mark += not unseen

    def until(self, until: float) -> list[tuple[float, Effect]]:
        """Every effect but looks and reads, with the instant of it."""
        found: list[tuple[float, Effect]] = []
        while self.watch.wake_at() <= until:
            self.now = max(self.now, self.watch.wake_at())
            effects = list(self.watch.wake(Mono(self.now)))
            while effects:
                effect = effects.pop(0)
                if isinstance(effect, Look | Read):
                    effects += self.watch.handle(self.seen(effect), Mono(self.now))
                else:
                    found.append((round(self.now, 6), effect))
        self.now = until
        return found

    def seen(self, effect: Effect) -> Signature | Content | Unreadable:
        self.reads += isinstance(effect, Read)
        if self.raw is None:
            return Unreadable("no such file")
        return Content(self.raw, is_steady=self.is_steady) if isinstance(effect, Read) else Signature(self.mark)


def file(raw: bytes | None = b"old") -> File:
    return File(Watch(Mono(0.0), every_s=1.0, settle_s=0.1, doubt_s=2.0), raw)


def test_the_first_look_is_believed_at_once() -> None:
    assert file().until(0.0) == [(0.0, Tell(b"old"))]
    assert file(None).until(0.0) == [(0.0, Report("no such file"))]


def test_new_content_is_told_once_two_looks_agree_on_it() -> None:
    it = file()
    it.until(10.5)
    it.write(b"new")
    assert it.until(20.0) == [(11.1, Tell(b"new"))]


def test_a_half_written_file_is_never_told() -> None:
    it = file()
    it.until(10.5)
    it.write(b"")
    assert it.until(11.05) == []
    it.write(b"ne")
    assert it.until(11.15) == []
    it.write(b"new")
    assert it.until(20.0) == [(11.3, Tell(b"new"))]


def test_a_file_that_changes_while_it_is_read_is_read_again_soon() -> None:
    it = file()
    it.until(10.5)
    it.write(b"new")
    it.is_steady = False
    assert it.until(11.05) == []
    it.is_steady = True
    assert it.until(20.0) == [(11.2, Tell(b"new"))]


def test_a_change_that_leaves_the_signature_as_it_was_is_noticed_while_the_signature_is_young() -> None:
    it = file()
    it.until(10.5)
    it.write(b"new")
    it.until(11.5)
    it.write(b"sly", unseen=True)
    assert it.until(20.0) == [(12.2, Tell(b"sly"))]


def test_an_old_signature_is_trusted_and_nothing_is_read() -> None:
    it = file()
    it.until(10.0)
    before = it.reads
    it.until(1_000.0)
    assert it.reads == before
    assert before == 3, "at 0, 1 and 2 seconds: then the signature is two seconds old"


def test_a_signature_is_doubted_until_a_read_that_is_late_enough_however_rare_the_looks() -> None:
    it = File(Watch(Mono(0.0), every_s=60.0, doubt_s=2.0))
    it.until(0.0)
    it.write(b"sly", unseen=True)
    assert it.until(200.0) == [(60.1, Tell(b"sly"))]


def test_a_new_signature_over_the_same_content_is_no_news() -> None:
    it = file()
    it.until(10.5)
    it.write(b"old")
    assert it.until(20.0) == []


def test_content_that_goes_and_comes_back_within_one_look_is_no_news() -> None:
    it = file()
    it.until(10.5)
    it.write(b"new")
    it.until(11.05)
    it.write(b"old")
    assert it.until(20.0) == []


def test_a_file_that_is_away_for_a_moment_was_never_away() -> None:
    it = file()
    it.until(10.5)
    it.write(None)
    assert it.until(11.05) == []
    it.write(b"new")
    assert it.until(20.0) == [(11.2, Tell(b"new"))]


def test_a_file_that_stays_away_is_reported_once_and_what_was_told_stands() -> None:
    it = file()
    it.until(10.5)
    it.write(None)
    assert it.until(20.5) == [(11.1, Report("no such file"))]
    it.write(b"old")
    assert it.until(30.5) == [(21.1, Report(None))]
    it.write(None)
    assert it.until(40.5) == [(31.2, Report("no such file"))]
    it.write(b"new")
    assert it.until(50.0) == [(41.2, Report(None)), (41.3, Tell(b"new"))]


def test_another_reason_is_another_report() -> None:
    watch = Watch(Mono(0.0))
    assert watch.handle(Unreadable("no such file"), Mono(0.0)) == (Report("no such file"),)
    assert watch.handle(Unreadable("permission denied"), Mono(1.0)) == ()
    assert watch.handle(Unreadable("permission denied"), Mono(1.1)) == (Report("permission denied"),)
    assert watch.problem == "permission denied"


def test_a_look_before_its_time_is_not_taken() -> None:
    watch = Watch(Mono(5.0))
    assert watch.wake(Mono(4.9)) == ()
    assert watch.wake(Mono(5.0)) == (Look(),)
    assert watch.wake_at() == 6.0


def test_a_clock_that_stands_still_leads_to_no_busy_loop() -> None:
    watch = Watch(Mono(5.0))
    watch.wake(Mono(5.0))
    assert watch.handle(Signature(1), Mono(5.0)) == (Read(),)
    assert watch.handle(Content(b"a"), Mono(5.0)) == (Tell(b"a"),)
    assert watch.wake(Mono(5.0)) == ()


@pytest.mark.parametrize("wrong", [{"every_s": 0.0}, {"every_s": float("nan")}, {"settle_s": -1.0}, {"doubt_s": -1.0}])
def test_a_pause_that_is_none_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(BadSettings) as caught:
        Watch(Mono(0.0), **wrong)
    assert [path for path, _ in caught.value.problems] == [f"watch.{name}" for name in wrong]
