from __future__ import annotations

import pytest

from budao.model import RemoteWireError
from budao.wire import framing


def test_a_frame_is_its_length_and_its_payload() -> None:
    assert framing.frame(b"abc") == b"\x00\x00\x00\x03abc"
    assert framing.frame(b"") == bytes(4)


def test_frames_of_one_piece_are_views_of_it() -> None:
    piece = framing.frame(b"one") + framing.frame(b"") + framing.frame(b"three")
    found = framing.Reader(100).feed(piece)
    assert found == [b"one", b"", b"three"]
    assert all(view.obj is piece for view in found)


def test_a_frame_that_comes_byte_by_byte_is_read_when_it_is_whole() -> None:
    reader = framing.Reader(100)
    raw = framing.frame(b"one") + framing.frame(b"two")
    found = [list(map(bytes, reader.feed(raw[at : at + 1]))) for at in range(len(raw))]
    assert [each for each in found if each] == [[b"one"], [b"two"]]
    assert not reader.is_mid_frame


def test_a_frame_has_begun_from_the_first_byte_of_its_length() -> None:
    reader = framing.Reader(100)
    assert not reader.is_mid_frame
    reader.feed(b"\x00")
    assert reader.is_mid_frame


def test_a_piece_ends_one_frame_and_begins_another() -> None:
    reader = framing.Reader(100)
    raw = framing.frame(b"first") + framing.frame(b"second") + framing.frame(b"third")
    assert reader.feed(raw[:7]) == []
    assert reader.feed(raw[7:17]) == [b"first"]
    assert reader.feed(raw[17:]) == [b"second", b"third"]


@pytest.mark.parametrize("cut", range(5))
def test_a_length_beyond_the_bound_is_refused_before_anything_of_it_is_kept(cut: int) -> None:
    reader = framing.Reader(10)
    raw = framing.frame(b"x" * 11)
    with pytest.raises(framing.BadFraming, match="11 bytes was announced, and at most 10"):
        list(map(reader.feed, (raw[:cut], raw[cut:])))


def test_what_came_before_a_bad_frame_is_in_the_error() -> None:
    with pytest.raises(RemoteWireError) as caught:
        framing.Reader(10).feed(framing.frame(b"good") + framing.frame(b"x" * 11))
    assert isinstance(caught.value, framing.BadFraming)
    assert caught.value.before == (b"good",)


def test_after_a_bad_frame_nothing_is_read() -> None:
    reader = framing.Reader(10)
    with pytest.raises(framing.BadFraming):
        reader.feed(framing.frame(b"x" * 11))
    with pytest.raises(framing.BadFraming):
        reader.feed(framing.frame(b"good"))


def test_a_frame_as_long_as_allowed_is_read() -> None:
    assert framing.Reader(10).feed(framing.frame(b"x" * 10)) == [b"x" * 10]
