from __future__ import annotations

from random import Random

from budao.discovery import Address, instance_here


def test_a_pod_tells_its_address_name_and_zone() -> None:
    here = {"POD_IP": "10.0.0.7", "POD_NAME": "orders-7f", "TOPOLOGY_ZONE": "eu-1a", "ZONE": "x", "VERSION": ""}
    made = instance_here("orders", {"http": 80, "grpc": 81}, here, Random(1))
    assert made.addresses == {"http": Address("10.0.0.7", 80), "grpc": Address("10.0.0.7", 81)}
    assert made.id.startswith("orders-7f-")
    assert (made.zone, made.version) == ("eu-1a", "")


def test_what_is_said_counts_more_than_the_environment() -> None:
    made = instance_here("s", {"tcp": 1}, {"POD_IP": "10.0.0.7"}, Random(1), id="me", host="h", zone="z", version="2")
    assert (made.id, made.addresses["tcp"].host, made.zone, made.version) == ("me", "h", "z", "2")


def test_each_life_has_an_id_and_an_incarnation_of_its_own() -> None:
    rng = Random(1)
    one, two = instance_here("s", {"tcp": 1}, {}, rng), instance_here("s", {"tcp": 1}, {}, rng)
    assert one.id != two.id
    assert one.incarnation != two.incarnation
    assert one.addresses["tcp"].host == "127.0.0.1"
