"""A reader of a log is told everything once and in order, or where it jumped, and holds only places."""

from __future__ import annotations

from budao.model import Wall
from budao.push import (
    START,
    Appended,
    Book,
    ChannelPolicy,
    ChannelRules,
    Draft,
    Following,
    Hole,
    Jumped,
    Position,
    Stretch,
)

T0 = Wall(1_800_000_000.0)


def filled(count: int, history_count: int = 100, epoch: str = "e") -> tuple[Book, list[Appended]]:
    book = Book(ChannelRules(otherwise=ChannelPolicy(history_count=history_count)))
    runs = [book.publish([Draft("a", b"1")], T0, epoch).appended[0] for _ in range(count)]
    return book, runs


def caught_up(following: Following, book: Book, count_max: int = 1000) -> list[Appended | Jumped]:
    def read(channel: str, after: Position) -> Stretch:
        return book.read(channel, after, T0, count_max=count_max)

    news: list[Appended | Jumped] = []
    while following.behind:
        news += following.catch_up(read)
    return news


def seqs(news: list[Appended | Jumped]) -> list[int]:
    return [message.position.seq for each in news if isinstance(each, Appended) for message in each.messages]


def test_what_follows_is_told_at_once_and_what_nobody_follows_is_not() -> None:
    _, (first, second) = filled(2)
    following = Following()
    assert following.offer(first, has_room=True) == ()
    following.follow("a", Position("e", 1), Position("e", 1))
    assert following.offer(second, has_room=True) == (second,)
    following.unfollow("a")
    assert following.offer(second, has_room=True) == ()


def test_without_room_a_place_is_kept_and_the_rest_is_read_later() -> None:
    book, runs = filled(5)
    following = Following()
    following.follow("a", START, START)
    assert following.offer(runs[0], has_room=True) == (runs[0],)
    assert [following.offer(run, has_room=False) for run in runs[1:4]] == [(), (), ()]
    assert following.offer(runs[4], has_room=True) == (), "what comes before it is told first"
    assert seqs(caught_up(following, book, count_max=2)) == [2, 3, 4, 5]
    assert following.told == {"a": Position("e", 5)}


def test_what_is_not_retained_is_jumped_over() -> None:
    book, runs = filled(5, history_count=2)
    following = Following()
    following.follow("a", Position("e", 1), Position("e", 1))
    following.offer(runs[1], has_room=False)
    jump, rest = caught_up(following, book)
    assert jump == Jumped("a", Position("e", 3), Hole.TRIMMED)
    assert seqs([rest]) == [4, 5]


def test_of_a_channel_that_keeps_nothing_only_the_jump_is_told() -> None:
    book, runs = filled(3, history_count=0)
    following = Following()
    following.follow("a", START, START)
    following.offer(runs[0], has_room=False)
    assert caught_up(following, book) == [Jumped("a", Position("e", 3), Hole.TRIMMED)]


def test_a_new_life_is_told_before_its_first_message() -> None:
    _, (run,) = filled(1, epoch="f")
    following = Following()
    following.follow("a", Position("e", 7), Position("e", 7))
    assert following.offer(run, has_room=True) == (Jumped("a", Position("f", 0), Hole.EPOCH), run)


def test_following_from_an_earlier_place_tells_what_came_since() -> None:
    book, _ = filled(4)
    following = Following()
    following.follow("a", Position("e", 2), book.head("a"))
    assert seqs(caught_up(following, book)) == [3, 4]


def test_a_log_that_is_put_back_to_an_earlier_state_is_another_life() -> None:
    book, _ = filled(2)
    following = Following()
    following.follow("a", Position("e", 9), book.head("a"))
    jump, rest = caught_up(following, book)
    assert jump == Jumped("a", Position("e", 0), Hole.EPOCH)
    assert seqs([rest]) == [1, 2]


def test_a_channel_that_was_forgotten_says_nothing_until_it_lives_again() -> None:
    following = Following()
    following.follow("a", Position("e", 9), START)
    assert caught_up(following, Book()) == []
    assert following.told == {"a": Position("e", 9)}
