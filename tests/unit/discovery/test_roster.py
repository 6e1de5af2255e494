from __future__ import annotations

from budao.discovery import Address, Instance, Roster
from budao.model import Stage

HTTP = Instance(service="s", id="a", addresses={"http": Address("h", 80)})
BOTH = Instance(service="s", id="b", addresses={"grpc": Address("::1", 81), "http": Address("h", 82)}, zone="z")
STARTING = Instance(service="s", id="c", addresses={"http": Address("h", 83)}, stage=Stage.STARTING)
DRAINING = Instance(service="s", id="d", addresses={"http": Address("h", 84)}, stage=Stage.DRAINING)
ROSTER = Roster(service="s", instances=(HTTP, BOTH, STARTING, DRAINING), doubted=frozenset({"b"}))


def test_only_ready_instances_take_calls() -> None:
    assert [endpoint.id for endpoint in ROSTER.endpoints()] == ["a", "b"]


def test_an_instance_that_does_not_speak_the_protocol_is_left_out() -> None:
    assert [endpoint.authority for endpoint in ROSTER.endpoints("grpc")] == ["[::1]:81"]


def test_without_a_protocol_each_gives_its_first_address() -> None:
    assert [endpoint.port for endpoint in ROSTER.endpoints()] == [80, 81]


def test_the_doubted_are_pickable_and_marked() -> None:
    assert [endpoint.is_doubted for endpoint in ROSTER.endpoints()] == [False, True]


def test_rosters_are_equal_by_what_they_hold() -> None:
    again = Roster(service="s", instances=(HTTP, BOTH, STARTING, DRAINING), doubted=frozenset({"b"}))
    assert again == ROSTER
    assert Roster(service="s", instances=(HTTP,)) != ROSTER
