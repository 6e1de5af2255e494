"""One connection between two clusters, stepped with numbers."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from budao.discovery import Address, FederatedSet, FederationPolicy, Instance
from budao.discovery.federation_peering import (
    Ack,
    Bye,
    Connect,
    Connected,
    Drop,
    Effect,
    Ended,
    Freshness,
    Hello,
    LocalChange,
    Peering,
    Piece,
    Ping,
    Received,
    Send,
    joined,
    pieces,
)
from budao.model import Mono


def instance(id_: str) -> Instance:
    return Instance(service="shop", id=id_, addresses={"http": Address("10.0.0.1", 80)})


def peering(name: str, *, is_dialling: bool, shared: FederatedSet | None = None) -> Peering:
    shared = FederatedSet(name, 1, FederationPolicy(writes_max=2)) if shared is None else shared
    return Peering(shared, Freshness(), Mono(0.0), token="t", rng=Random(1), is_dialling=is_dialling)


def frames(effects: tuple[Effect, ...]) -> list[object]:
    return [each.frame for each in effects if isinstance(each, Send)]


def talk(one: Peering, other: Peering, begin: tuple[Effect, ...], now: Mono) -> int:
    """Carries frames to and fro until both are silent; how many writes went over."""
    queue = [(other, one, frame) for frame in frames(begin)]
    writes = 0
    while queue:
        to, by, frame = queue.pop(0)
        if isinstance(frame, Piece):
            writes += sum(len(span.writes) for span in frame.delta.spans)
        queue += [(by, to, each) for each in frames(to.handle(Received(frame), now))]  # type: ignore[arg-type]
    return writes


def connected() -> tuple[Peering, Peering]:
    one, other = peering("east", is_dialling=True), peering("west", is_dialling=False)
    assert one.wake(Mono(0.0)) == (Connect(),)
    other.handle(Connected(), Mono(0.0))
    talk(one, other, one.handle(Connected(), Mono(0.0)), Mono(0.0))
    assert one.is_open
    assert other.is_open
    return one, other


def test_who_is_dialled_says_its_token_only_to_who_has_shown_it() -> None:
    other = peering("west", is_dialling=False)
    assert other.handle(Connected(), Mono(0.0)) == ()
    said = other.handle(Received(Hello("east", 1, "wrong"), is_trusted=False), Mono(0.0))
    assert [type(each) for each in said] == [Send, Drop]
    assert isinstance(frames(said)[0], Bye)


def test_changes_gather_while_an_acknowledgement_is_owed() -> None:
    one, other = connected()
    one.shared.put(instance("a"))
    first = one.handle(LocalChange(), Mono(1.0))
    assert len(frames(first)) == 1
    for id_ in "bcde":
        one.shared.put(instance(id_))
        assert one.handle(LocalChange(), Mono(1.0)) == ()
    assert talk(one, other, first, Mono(1.0)) == 5
    assert other.shared.contents() == one.shared.contents()


def test_what_a_peer_has_sent_is_not_sent_back() -> None:
    one, other = connected()
    one.shared.put(instance("a"))
    talk(one, other, one.handle(LocalChange(), Mono(1.0)), Mono(1.0))
    assert other.handle(LocalChange(), Mono(1.0)) == ()


def test_what_a_peer_has_no_room_for_is_not_sent_again_and_again() -> None:
    one = peering("east", is_dialling=True)
    other = peering("west", is_dialling=False, shared=FederatedSet("west", 1, FederationPolicy(elements_max=2)))
    one.wake(Mono(0.0))
    other.handle(Connected(), Mono(0.0))
    talk(one, other, one.handle(Connected(), Mono(0.0)), Mono(0.0))
    for id_ in "abc":
        one.shared.put(instance(id_))
    assert talk(one, other, one.handle(LocalChange(), Mono(1.0)), Mono(1.0)) == 3
    assert other.shared.left_out == 1
    assert one.handle(LocalChange(), Mono(1.0)) == ()
    one.shared.withdraw(("shop", "a"))
    talk(one, other, one.handle(LocalChange(), Mono(2.0)), Mono(2.0))
    assert other.shared.contents() == one.shared.contents()


def test_silence_is_taken_for_death_and_the_next_try_is_jittered() -> None:
    one, _ = connected()
    effects: tuple[Effect, ...] = ()
    now = Mono(0.0)
    while not any(isinstance(each, Drop) for each in effects):
        wake_at = one.wake_at()
        assert wake_at is not None
        now = wake_at
        effects = one.wake(now)
    assert now == 2.0
    again = one.wake_at()
    assert again is not None
    assert 2.0 <= again <= 2.1
    assert one.wake(again) == (Connect(),)
    one.handle(Ended("refused"), again)
    assert one.wake_at() is not None


def test_what_others_heard_of_a_third_cluster_keeps_it_fresh() -> None:
    one, _ = connected()
    one.shared.absorb(FederatedSet("south", 1).delta_since({}))
    one.handle(Received(Ping({"south": 1.5, "unknown": 0.0})), Mono(10.0))
    assert one.freshness.heard["south"] == 8.5
    assert "unknown" not in one.freshness.heard


def test_strangers_are_dropped() -> None:
    for frame in (Ping(), Ack({}), Hello("west", 1, "t")):
        other = peering("west", is_dialling=False)
        other.handle(Connected(), Mono(0.0))
        assert isinstance(other.handle(Received(frame), Mono(0.0))[-1], Drop)
    shared = FederatedSet("west", 1)
    shared.absorb(FederatedSet("east", 5).delta_since({}))
    shared.forget("east")
    other = peering("west", is_dialling=False, shared=shared)
    other.handle(Connected(), Mono(0.0))
    assert "was forgotten" in str(other.handle(Received(Hello("east", 5, "t")), Mono(0.0))[-1])


def test_who_gave_its_name_up_hangs_up_and_does_not_dial_again() -> None:
    one, other = connected()
    later = FederatedSet("east", 1)
    for _ in range(FederationPolicy().renewals_max + 1):
        later.renew(one.shared.epoch + 1)
        one.shared.absorb(later.delta_since({}))
    assert one.shared.is_contested
    said = one.handle(LocalChange(), Mono(1.0))
    assert [type(each) for each in said] == [Send, Drop]
    assert one.problem is not None
    assert "another process lives as 'east'" in one.problem
    assert one.wake_at() is None
    # Nor does it answer callers, and tells the reason to nobody without the token.
    for hello, is_trusted, reason in (
        (Hello("west", 1, "t"), True, "another process"),
        (Hello("x", 1), False, "token"),
    ):
        caller = peering("east", is_dialling=False, shared=one.shared)
        caller.handle(Connected(), Mono(2.0))
        assert reason in str(caller.handle(Received(hello, is_trusted=is_trusted), Mono(2.0))[-1])
        assert not caller.is_open
    # What another link found out, this one hears at its next ping.
    again = peering("east", is_dialling=True, shared=one.shared)
    assert again.wake(Mono(0.0)) == ()
    assert again.wake_at() is None
    assert other.is_open


@given(st.integers(0, 9), st.integers(0, 9), st.integers(1, 5))
def test_a_delta_cut_in_pieces_is_joined_again(first: int, second: int, writes_max: int) -> None:
    east, west = FederatedSet("east", 1), FederatedSet("west", 1)
    for number in range(first):
        east.put(instance(f"e{number}"))
    for number in range(second):
        west.put(instance(f"w{number}"))
    east.merge(west)
    delta = east.delta_since({})
    cut = pieces(delta, writes_max)
    assert all(sum(len(span.writes) for span in each.delta.spans) <= writes_max for each in cut)
    assert [each.is_last for each in cut] == [False] * (len(cut) - 1) + [True]
    assert joined([each.delta for each in cut]) == delta
