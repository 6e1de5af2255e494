from __future__ import annotations

from random import Random

import pytest

from budao.model import Mono
from budao.push import Advice, BackoffPolicy, ClientPolicy
from budao.push.reunion import (
    Adopt,
    AskedToPromote,
    Delivers,
    Dial,
    Effect,
    Ended,
    Fact,
    GiveUp,
    HangUp,
    Offered,
    Promote,
    Reunion,
    Role,
    Shape,
    Welcomed,
)

POLICY = ClientPolicy(
    is_shuffled=False, standby_spread_s=0.0, again_spread_s=0.0, backoff=BackoffPolicy(first_s=0.1, max_s=1.0)
)


class Told:
    """A machine and what it said, with the numbers of its connections in order."""

    def __init__(self, *urls: str, policy: ClientPolicy = POLICY, **more: bool) -> None:
        self.machine = Reunion(urls or ("a", "b"), Random(7), policy, **more)
        self.now = 0.0
        self.said: list[Effect] = []
        self._take(self.machine.start(Mono(0.0)))

    def _take(self, effects: tuple[Effect, ...]) -> list[Effect]:
        self.said += effects
        return list(effects)

    def tell(self, fact: Fact, after_s: float = 0.0) -> list[Effect]:
        self.now += after_s
        return self._take(self.machine.handle(fact, Mono(self.now)))

    def wake(self) -> list[Effect]:
        """Passes to the next instant at which anything is due."""
        self.now = max(self.now, self.machine.wake_at())
        return self._take(self.machine.wake(Mono(self.now)))

    def welcome(self, link: int, beat_s: float = 0.05) -> list[Effect]:
        return self.tell(Welcomed(link=link, beat_s=beat_s))


def with_standby() -> Told:
    told = Told(has_standby=True)
    told.welcome(1)
    assert told.wake() == [Dial(2, "b", Role.STANDBY, 0.05)]
    assert told.welcome(2) == []
    assert (told.machine.active, told.machine.standby) == (1, 2)
    return told


def test_the_first_connection_is_adopted_once_it_is_welcomed() -> None:
    told = Told()
    assert told.said == [Dial(1, "a", Role.ACTIVE, 2.0)]
    assert told.machine.active is None
    assert told.welcome(1) == [Adopt(link=1)]
    assert (told.machine.active, told.machine.shape) == (1, Shape.ONLINE)


def test_a_gateway_that_fails_is_left_alone_while_another_one_is_tried() -> None:
    told = Told()
    assert told.tell(Ended(link=1, problem="refused")) == [Dial(2, "b", Role.ACTIVE, 2.0)]
    assert told.tell(Ended(link=2, problem="refused")) == []
    assert 0.0 < told.machine.wake_at() <= 0.1
    assert [type(each) for each in told.wake()] == [Dial]
    assert "refused" in told.machine.problem


def test_a_gateway_that_does_not_welcome_in_time_is_hung_up_on() -> None:
    told = Told()
    hung, dial = told.wake()
    assert told.now == POLICY.welcome_s
    assert isinstance(hung, HangUp)
    assert hung.is_dead
    assert dial == Dial(2, "b", Role.ACTIVE, 2.0)


def test_a_gateway_that_says_when_is_not_tried_before() -> None:
    told = Told("a")
    assert told.tell(Ended(link=1, code=4201, advice=Advice.LATER, after_s=30.0)) == []
    assert 30.0 <= told.machine.wake_at() <= 33.0


def test_a_connection_that_is_lost_goes_on_elsewhere() -> None:
    told = Told()
    told.welcome(1)
    assert told.tell(Ended(link=1), after_s=60.0) == []
    assert told.machine.shape is Shape.CONNECTING
    assert told.wake() == [Dial(2, "b", Role.ACTIVE, 2.0)]


@pytest.mark.parametrize("is_shuffled", [True, False])
def test_the_gateway_that_was_lost_last_is_chosen_last(is_shuffled: bool) -> None:
    policy = ClientPolicy(is_shuffled=is_shuffled, again_spread_s=0.0, backoff=BackoffPolicy(first_s=0.1, max_s=1.0))
    told = Told("a", "b", policy=policy)
    for number in range(1, 20):
        lost = told.said[-1]
        assert isinstance(lost, Dial)
        told.welcome(number)
        told.tell(Ended(link=number, advice=Advice.NOW), after_s=60.0)  # it may be tried at once, and may be gone
        told.now += 10.0  # and nobody else is left alone
        (again,) = told.wake()
        assert isinstance(again, Dial)
        assert again.url != lost.url
    told = Told("a", policy=policy)
    told.welcome(1)
    told.tell(Ended(link=1), after_s=60.0)
    told.now += 10.0
    assert [type(each) for each in told.wake()] == [Dial]


def test_silence_promotes_the_standby_and_another_one_is_opened() -> None:
    told = with_standby()
    told.wake()  # the first look
    hung, adopted = told.wake()
    assert told.now == pytest.approx(0.155)
    assert isinstance(hung, HangUp)
    assert (hung.link, hung.is_dead, hung.problem) == (1, True, "it fell silent")
    assert adopted == Adopt(link=2, is_standby=True)
    assert told.machine.active == 2
    told.tell(Delivers(link=2))
    said: list[Effect] = []
    while not said:
        liveness = told.machine.liveness(2)
        assert liveness is not None
        liveness.heard(Mono(told.now))
        said = told.wake()
    assert said == [Dial(3, "a", Role.STANDBY, 0.05)]


def test_a_standby_that_does_not_deliver_is_given_up_too() -> None:
    told = with_standby()
    assert told.tell(Ended(link=1)) == [Adopt(link=2, is_standby=True)]
    liveness = told.machine.liveness(2)
    assert liveness is not None
    told.now = POLICY.promote_s
    liveness.heard(Mono(told.now))
    hung = next(each for each in told.wake() if isinstance(each, HangUp))
    assert (hung.link, hung.problem) == (2, "it does not deliver")


def test_a_standby_that_ends_is_replaced_and_the_active_one_stays() -> None:
    told = with_standby()
    assert told.tell(Ended(link=2)) == []
    assert (told.machine.active, told.machine.standby) == (1, None)


def test_a_standby_that_is_ready_first_takes_over_from_a_connection_that_is_still_dialled() -> None:
    told = Told("a", "b", "c", has_standby=True)
    told.welcome(1)
    told.wake()
    told.tell(Ended(link=1))
    assert told.wake()[0] == Dial(3, "b", Role.ACTIVE, 0.05)
    assert told.welcome(2) == [Adopt(link=2, is_standby=True), HangUp(link=3)]


def test_with_one_gateway_nothing_stands_by_until_another_one_is_named() -> None:
    told = Told("a", has_standby=True)
    told.tell(Welcomed(link=1, beat_s=0.0, peers=("b",)))
    assert told.wake() == [Dial(2, "b", Role.STANDBY, 0.05)]


def test_a_move_opens_the_new_home_beside_the_old_one() -> None:
    told = Told()
    told.welcome(1)
    offer = Offered(link=1, url="c", ticket="t", within_s=10.0)
    assert told.tell(offer) == [Dial(2, "c", Role.NEXT, 2.0, "t")]
    assert told.tell(offer) == []
    assert told.machine.active == 1
    assert told.welcome(2) == [Adopt(link=2), HangUp(link=1)]
    assert told.machine.active == 2
    told.tell(Ended(link=2))
    assert told.wake() == [Dial(3, "b", Role.ACTIVE, 2.0)]  # not the one that sent us away


def test_who_loses_its_new_home_at_once_goes_back_to_the_one_that_sent_it_away_if_there_is_no_other() -> None:
    told = Told("a", "b")
    told.welcome(1)
    told.tell(Offered(link=1, url="b", within_s=10.0))
    assert told.welcome(2) == [Adopt(link=2), HangUp(link=1)]
    told.tell(Ended(link=2))
    assert told.wake() == [Dial(3, "a", Role.ACTIVE, 2.0)]
    assert told.now < 1.0  # and it is not without a home until the old one has surely left


def test_a_ticket_that_is_not_accepted_is_followed_by_the_token() -> None:
    told = Told()
    told.welcome(1)
    told.tell(Offered(link=1, url="b", ticket="t", within_s=10.0))
    assert told.tell(Ended(link=2, code=4304, advice=Advice.NOW)) == [Dial(3, "b", Role.NEXT, 2.0)]


def test_a_new_home_that_cannot_be_reached_is_replaced_by_another_one() -> None:
    told = Told("a", "b", "c")
    told.welcome(1)
    told.tell(Offered(link=1, url="b", within_s=10.0))
    assert told.tell(Ended(link=2)) == [Dial(3, "c", Role.NEXT, 2.0)]
    assert told.machine.active == 1


def test_a_gateway_that_ends_while_a_move_is_under_way_waits_for_the_new_home() -> None:
    told = Told()
    told.welcome(1)
    told.tell(Offered(link=1, url="b", within_s=10.0))
    assert told.tell(Ended(link=1)) == []
    assert told.welcome(2) == [Adopt(link=2)]


def test_a_standby_that_is_sent_away_goes_where_it_is_sent() -> None:
    told = with_standby()
    effects = told.tell(Offered(link=2, url="c", ticket="t", within_s=5.0))
    assert effects == [HangUp(link=2), Dial(3, "c", Role.STANDBY, 0.05, "t")]


def test_an_offer_says_where_the_next_standby_goes() -> None:
    told = Told("a", has_standby=True)
    told.welcome(1)
    assert told.tell(Offered(link=1, url="z", ticket="t", is_move=False)) == [Dial(2, "z", Role.STANDBY, 0.05, "t")]


def test_a_standby_goes_where_the_home_says() -> None:
    told = with_standby()
    assert told.tell(Offered(link=1, url="b", ticket="t", is_move=False)) == []  # it is there
    effects = told.tell(Offered(link=1, url="z", ticket="t", is_move=False))
    assert effects == [HangUp(link=2), Dial(3, "z", Role.STANDBY, 0.05, "t")]
    assert told.tell(Offered(link=3, url="b", is_move=False)) == []  # only the home says so
    plain = Told()
    plain.welcome(1)
    assert plain.tell(Offered(link=1, url="z", is_move=False)) == []  # nobody wants a standby


@pytest.mark.parametrize(("by", "within_s"), [(2, 0.0), (1, 5.0)])
def test_a_standby_that_is_to_be_promoted_delivers_before_the_home_is_let_go(by: int, within_s: float) -> None:
    told = with_standby()
    assert told.tell(AskedToPromote(link=by, within_s=within_s), after_s=0.01) == [Promote(2)]
    assert (told.machine.active, told.machine.standby) == (1, None)
    assert told.tell(AskedToPromote(link=by, within_s=within_s)) == []  # said again, it changes nothing
    assert told.tell(Delivers(link=2)) == [Adopt(link=2), HangUp(link=1)]
    assert told.machine.active == 2
    assert told.tell(Delivers(link=2)) == []


def test_a_promotion_that_fails_leaves_everything_as_it_was() -> None:
    told = with_standby()
    told.tell(AskedToPromote(link=2), after_s=0.01)
    assert told.tell(Ended(link=2)) == []
    assert (told.machine.active, told.machine.shape) == (1, Shape.ONLINE)
    told.wake()  # its gateway is left alone for a moment
    assert told.wake() == [Dial(3, "b", Role.STANDBY, 0.05)]


def test_a_standby_that_does_not_deliver_when_it_is_to_be_promoted_is_given_up() -> None:
    told = with_standby()
    told.tell(AskedToPromote(link=2))
    told.now = POLICY.promote_s
    for link in (1, 2):
        liveness = told.machine.liveness(link)
        assert liveness is not None
        liveness.heard(Mono(told.now))
    hung = next(each for each in told.wake() if isinstance(each, HangUp))
    assert (hung.link, hung.problem) == (2, "it does not deliver")
    assert told.machine.active == 1


def test_a_home_that_ends_during_a_promotion_is_followed_by_the_standby() -> None:
    told = with_standby()
    told.tell(AskedToPromote(link=2))
    assert told.tell(Ended(link=1)) == [Adopt(link=2)]
    assert told.tell(Delivers(link=2)) == []
    assert told.machine.active == 2


def test_a_home_that_is_replaced_by_our_own_promotion_ends_nothing() -> None:
    told = with_standby()
    told.tell(AskedToPromote(link=2))
    replaced = Ended(link=1, code=4104, advice=Advice.NEVER, problem="replaced")
    assert told.tell(replaced) == [Adopt(link=2)]
    assert told.machine.shape is Shape.ONLINE
    alone = Told()
    alone.welcome(1)
    assert [type(each) for each in alone.tell(replaced)] == [GiveUp]  # by somebody else


def test_who_is_replaced_by_a_connection_of_its_own_that_it_gave_up_comes_back() -> None:
    told = Told("a")
    told.wake()  # the gateway is frozen: it reads the hello of the first connection later than that of the second
    told.wake()
    assert told.said[-1] == Dial(2, "a", Role.ACTIVE, 2.0)
    told.welcome(2)
    replaced = Ended(link=2, code=4104, advice=Advice.NEVER, problem="replaced")
    told.tell(replaced)
    assert told.machine.shape is Shape.CONNECTING
    while told.said[-1] != Dial(3, "a", Role.ACTIVE, 2.0):
        told.wake()
    told.welcome(3)
    again = told.tell(Ended(link=3, code=4104, advice=Advice.NEVER, problem="replaced"))
    assert [type(each) for each in again] == [GiveUp], "there was one such connection: this is somebody else"


def test_a_connection_that_was_given_up_long_ago_replaces_nobody() -> None:
    told = Told("a")
    told.wake()
    told.wake()
    told.welcome(2)
    replaced = Ended(link=2, code=4104, advice=Advice.NEVER, problem="replaced")
    assert [type(each) for each in told.tell(replaced, after_s=61.0)] == [GiveUp]


def test_a_standby_that_was_promoted_in_vain_may_replace_its_successor_later() -> None:
    told = with_standby()
    told.tell(Ended(link=1))
    told.now += 0.5
    while told.machine.active == 2:
        told.wake()
    while told.said[-1] != Dial(told.machine._number, "b", Role.ACTIVE, 0.05):
        dialled = told.machine._active
        if dialled is not None and dialled.gateway.url == "a":
            told.tell(Ended(link=dialled.number))
        told.wake()
    told.welcome(told.machine._number)
    told.tell(Ended(link=told.machine._number, code=4104, advice=Advice.NEVER, problem="replaced"))
    assert told.machine.shape is Shape.CONNECTING


def test_who_is_to_be_promoted_without_a_standby_goes_elsewhere() -> None:
    told = Told()
    told.welcome(1)
    assert told.tell(AskedToPromote(link=1, within_s=5.0)) == [Dial(2, "b", Role.NEXT, 2.0)]


@pytest.mark.parametrize("code", [4302, 4303, 1009])
def test_who_is_told_not_to_come_back_does_not(code: int) -> None:
    told = with_standby()
    effects = told.tell(Ended(link=1, code=code, advice=Advice.NEVER, problem="no"))
    assert effects == [HangUp(link=2), GiveUp(code=code, problem="a: no")]
    assert (told.machine.shape, told.machine.wake_at()) == (Shape.GIVEN_UP, float("inf"))


def test_a_token_is_renewed_twice_and_no_more() -> None:
    told = Told("a", can_refresh=True)
    expired = {"code": 4301, "advice": Advice.NEVER}
    for link in (1, 2):
        told.tell(Ended(link=link, **expired))  # type: ignore[arg-type]
        while len([each for each in told.said if isinstance(each, Dial)]) == link:
            told.wake()
    assert [type(each) for each in told.tell(Ended(link=3, **expired))] == [GiveUp]  # type: ignore[arg-type]
    fixed = Told("a")
    assert [type(each) for each in fixed.tell(Ended(link=1, **expired))] == [GiveUp]  # type: ignore[arg-type]


def test_a_standby_that_is_not_let_in_does_not_end_the_client() -> None:
    told = Told(has_standby=True)
    told.welcome(1)
    told.wake()
    assert told.tell(Ended(link=2, code=4302, advice=Advice.NEVER)) == []
    assert told.machine.shape is Shape.ONLINE


def test_learned_gateways_have_a_bound() -> None:
    told = Told("a", policy=ClientPolicy(peers_max=2))
    told.tell(Welcomed(link=1, peers=tuple(f"p{number}" for number in range(100))))
    assert told.machine.urls() == ("a", "p0", "p1")


def test_what_is_told_of_a_connection_that_is_gone_changes_nothing() -> None:
    told = Told()
    assert told.tell(Welcomed(link=9)) == []
    assert told.machine.close() == (HangUp(link=1),)
    assert (told.machine.shape, told.machine.wake_at()) == (Shape.CLOSED, float("inf"))
    assert told.tell(Ended(link=1)) == []


def test_secrets_are_not_shown() -> None:
    assert "secret" not in repr(Dial(1, "a", Role.NEXT, 1.0, "secret")) + repr(Offered(link=1, ticket="secret"))


def test_a_client_without_gateways_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Reunion([], Random(1))
