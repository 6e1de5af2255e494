from __future__ import annotations

from collections.abc import Container, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.discovery import Address, Choice, Instance, Picked, PoolMachine, Roster
from budao.model import CallRefused, Endpoint, Load, Mono, NobodyThere, Stage, Why


class InTurn:
    """The endpoint with the fewest picks; remembers what it was told."""

    def __init__(self) -> None:
        self.endpoints: tuple[Endpoint, ...] = ()
        self.picks: dict[str, int] = {}
        self.told: list[tuple[str, object]] = []
        self.renewals = 0

    def renew(self, endpoints: Sequence[Endpoint], now: Mono) -> None:
        self.endpoints = tuple(endpoints)
        self.renewals += 1

    def pick(self, now: Mono, *, key: bytes | None = None, avoid: Container[str] = ()) -> Chosen | None:
        if not self.endpoints:
            return None
        found = min(self.endpoints, key=lambda each: (each.id in avoid, self.picks.get(each.id, 0)))
        self.picks[found.id] = self.picks.get(found.id, 0) + 1
        return Chosen(found)

    def settle(self, choice: Choice, took_s: float, failed: bool, load: Load | None, now: Mono) -> None:
        self.told.append((choice.endpoint.id, (took_s, failed, load)))

    def drop(self, choice: Choice, now: Mono) -> None:
        self.told.append((choice.endpoint.id, "dropped"))


class Chosen:
    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint


def instance(id_: str, stage: Stage = Stage.READY, protocol: str = "http") -> Instance:
    return Instance(service="shop", id=id_, addresses={protocol: Address("10.0.0.1", 80)}, stage=stage)


def roster(*instances: Instance, revision: int = 1) -> Roster:
    return Roster(service="shop", revision=revision, instances=instances)


def picked(machine: PoolMachine, at: float = 0.0, avoid: Container[str] = ()) -> Picked:
    found = machine.pick(Mono(at), avoid=avoid)
    assert found is not None
    return found


def test_calls_go_to_the_ready_instances_only() -> None:
    machine = PoolMachine(InTurn())
    machine.renew(roster(instance("a"), instance("b", Stage.DRAINING), instance("c", Stage.STARTING)), Mono(0.0))
    assert [picked(machine).endpoint.id for _ in range(3)] == ["a", "a", "a"]


def test_how_a_call_ended_reaches_the_balancer_and_the_count() -> None:
    balancer = InTurn()
    machine = PoolMachine(balancer)
    machine.renew(roster(instance("a")), Mono(0.0))
    one, two, three = (picked(machine) for _ in range(3))
    assert machine.in_flight == 3
    load = Load(2, 0.01)
    machine.settle(one, 0.5, False, load, Mono(0.5))
    machine.settle(two, 0.1, True, None, Mono(0.6))
    machine.drop(three, Mono(0.7))
    assert machine.in_flight == 0
    assert balancer.told == [("a", (0.5, False, load)), ("a", (0.1, True, None)), ("a", "dropped")]
    view = machine.view().endpoints[0]
    assert (view.picked, view.failed, view.dropped, view.in_flight) == (3, 1, 1, 0)


def test_a_pick_is_settled_exactly_once() -> None:
    machine = PoolMachine(InTurn())
    machine.renew(roster(instance("a")), Mono(0.0))
    one = picked(machine)
    machine.drop(one, Mono(0.0))
    with pytest.raises(AssertionError):
        machine.settle(one, 0.0, False, None, Mono(0.0))
    assert machine.in_flight == 0


def test_a_call_that_was_left_after_a_long_wait_took_at_least_that_long() -> None:
    balancer = InTurn()
    machine = PoolMachine(balancer)
    machine.renew(roster(instance("a")), Mono(0.0))
    machine.drop(picked(machine), Mono(100.0), was_waiting=True)  # nobody knows what is usual
    machine.settle(picked(machine), 1.0, False, None, Mono(1.0))
    machine.drop(picked(machine), Mono(2.0), was_waiting=True)
    machine.drop(picked(machine), Mono(9.0))
    machine.drop(picked(machine), Mono(9.0), was_waiting=True)
    assert [told for _, told in balancer.told] == [
        "dropped", (1.0, False, None), "dropped", "dropped", (9.0, False, None)
    ]  # fmt: skip
    assert machine.view().endpoints[0].dropped == 4
    assert machine.in_flight == 0


def test_what_was_counted_of_an_instance_that_stays_is_kept() -> None:
    machine = PoolMachine(InTurn())
    machine.renew(roster(instance("a"), instance("b")), Mono(0.0))
    out = picked(machine)
    assert out.endpoint.id == "a"
    machine.renew(roster(instance("b"), revision=2), Mono(1.0))
    assert [each.endpoint.id for each in machine.view().endpoints] == ["b"]
    assert machine.view().in_flight == 1
    machine.settle(out, 1.0, False, None, Mono(1.0))
    assert machine.view().in_flight == 0


def test_who_was_tried_is_avoided() -> None:
    machine = PoolMachine(InTurn())
    machine.renew(roster(instance("a"), instance("b")), Mono(0.0))
    assert picked(machine, avoid={"a"}).endpoint.id == "b"
    assert picked(machine, avoid={"a", "b"}).endpoint.id == "a"


def test_the_error_for_nobody_says_who_is_there_instead() -> None:
    machine = PoolMachine(InTurn(), protocol="http")
    machine.renew(
        roster(instance("a", Stage.STARTING), instance("b", Stage.STARTING), instance("c", Stage.DRAINING),
               instance("d", protocol="grpc")),
        Mono(0.0),
    )  # fmt: skip
    assert machine.pick(Mono(0.0)) is None
    error = machine.nobody()
    assert isinstance(error, CallRefused)
    assert error.why is Why.NOBODY
    assert str(error) == (
        "service shop: not sent, no endpoint is ready (0 of 4 ready: 1 draining, 2 starting, 1 without an address for"
        " 'http'); it is safe to try again later"
    )
    assert machine.view().nobody == 1
    assert "1 calls found nobody" in machine.explain()


def test_an_error_for_nobody_survives_without_its_details() -> None:
    assert "no endpoint is ready; it is" in str(NobodyThere("shop", PoolMachine(InTurn()).nobody().refusal))


def test_endpoints_that_are_given_need_no_roster() -> None:
    machine = PoolMachine(InTurn(), service="fixed")
    machine.renew_fixed(
        [Endpoint(id="a", host="h", port=1), Endpoint(id="b", host="h", port=2, stage=Stage.DRAINING)], Mono(0.0)
    )
    assert picked(machine).endpoint.id == "a"
    assert machine.explain().startswith(
        "pool 'fixed': InTurn over 1 ready endpoints\n1 more draining\n  a at h:1: 1 calls"
    )


@given(st.lists(st.sampled_from(["pick", "settle", "fail", "drop", "renew"]), max_size=60))
def test_nothing_is_left_in_flight_when_all_calls_have_ended(steps: list[str]) -> None:
    machine = PoolMachine(InTurn())
    names = ["a", "b", "c"]
    machine.renew(roster(*map(instance, names)), Mono(0.0))
    out: list[Picked] = []
    for at, step in enumerate(steps):
        now = Mono(float(at))
        if step == "pick":
            out.append(picked(machine, now))
        elif step == "renew":
            names = names[1:] + names[:1]
            machine.renew(roster(*map(instance, names[:2]), revision=at), now)
        elif out:
            each = out.pop(0)
            machine.drop(each, now) if step == "drop" else machine.settle(each, 0.0, step == "fail", None, now)
        assert machine.in_flight == len(out)
    for each in out:
        machine.drop(each, Mono(1e6))
    assert machine.view().in_flight == 0
    assert all(each.in_flight == 0 for each in machine.view().endpoints)
