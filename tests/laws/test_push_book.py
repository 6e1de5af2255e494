"""Whatever is published, a book holds what a list would, and its journal is a copy of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from budao.model import Wall
from budao.push import START, Book, BookPolicy, ChannelPolicy, ChannelRules, Draft, NotPlaced, Placed, Position
from budao.wire import log_codec, log_journal

CHANNELS = st.sampled_from(["a", "b", "c", "d"])
DRAFTS = st.builds(Draft, CHANNELS, st.binary(max_size=8), id=st.none() | st.sampled_from(["x", "y", "z"]))
STEPS = st.lists(st.tuples(st.lists(DRAFTS, max_size=6), st.floats(0.0, 4.0)), max_size=20)
RULES = ChannelRules(otherwise=ChannelPolicy(history_count=4, history_age_s=20.0, message_bytes_max=7))
POLICY = BookPolicy(channels_max=3, idle_s=2.0, ids_max=5, ids_age_s=6.0)


@given(STEPS)
def test_places_count_up_without_holes_within_a_life_and_are_never_given_twice(
    steps: list[tuple[list[Draft], float]],
) -> None:
    book, now = Book(RULES, POLICY), Wall(1e9)
    given_out: dict[tuple[str, Position], Draft] = {}
    heads: dict[str, Position] = {}
    for number, (drafts, span_s) in enumerate(steps):
        now = Wall(now + span_s)
        for draft, answer in zip(drafts, book.publish(drafts, now, f"e{number}").answers, strict=True):
            if isinstance(answer, NotPlaced):
                assert answer.why in {"too-large", "no-room"}
                continue
            key = (draft.channel, answer.position)
            if answer.is_repeat:
                assert given_out[key].id == draft.id
                continue
            assert key not in given_out
            given_out[key] = draft
            head = heads.get(draft.channel, START)
            is_same_life = head.epoch == answer.position.epoch
            assert answer.position.seq == (head.seq + 1 if is_same_life else 1)
            heads[draft.channel] = answer.position
        assert len(book) <= POLICY.channels_max
        assert len(book.known_ids()) <= POLICY.ids_max
        for channel, head in heads.items():
            stretch = book.read(channel, START, now)
            assert stretch.head in {head, START}
            assert len(stretch.messages) <= 4
            assert [message.position.seq for message in stretch.messages] == list(
                range(stretch.head.seq - len(stretch.messages) + 1, stretch.head.seq + 1)
            )
            for message in stretch.messages:
                draft = given_out[channel, message.position]
                assert (message.data, message.id) == (draft.data, draft.id)


@given(STEPS, st.integers(0, 20))
def test_a_snapshot_and_what_came_after_it_give_the_same_book(steps: list[tuple[list[Draft], float]], cut: int) -> None:
    book, now = Book(RULES, POLICY), Wall(1e9)
    snapshot, groups = list(log_journal.format_snapshot(0, (), ())), list[bytes]()
    for number, (drafts, span_s) in enumerate(steps):
        if number == cut:
            snapshot, groups = list(log_journal.format_snapshot(number, book.kept(), book.known_ids())), []
        now = Wall(now + span_s)
        runs = book.publish(drafts, now, f"e{number}").appended
        groups.append(log_journal.format_group(number, [log_codec.format_run(run) for run in runs]))
    again = Book(RULES, POLICY)
    _, kept, ids = log_journal.parse_snapshot(snapshot)
    again.restore(kept, ids, now)
    for group in groups:
        for run in log_journal.parse_group(group)[1]:
            again.replay(run)
    for channel in "abcd":
        # What was forgotten for time alone may come back, and never as something else.
        if book.head(channel) != START:
            assert again.read(channel, START, now) == book.read(channel, START, now)


@given(st.lists(DRAFTS, min_size=1, max_size=8))
def test_answers_are_the_same_whether_drafts_come_together_or_one_by_one(drafts: list[Draft]) -> None:
    together, apart = Book(RULES), Book(RULES)
    one_by_one = [apart.publish([draft], Wall(1e9), "e").answers[0] for draft in drafts]
    assert list(together.publish(drafts, Wall(1e9), "e").answers) == one_by_one
    assert any(isinstance(answer, Placed) or answer.why == "too-large" for answer in one_by_one)
    assert together.known_ids() == apart.known_ids()
