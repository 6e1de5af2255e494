"""How code behind a guard is tested: the other side fails on order, and nothing is patched.

python examples/test_my_code.py, or pytest examples/test_my_code.py
"""

from __future__ import annotations

from budao import BreakerOpen, BreakerPolicy, Guard, GuardPolicy, PeerReset, RetryPolicy
from budao.guard import Retried
from budao.testkit import FakeClock, Slow, events_of, forced

# ---- what is tested

clock = FakeClock()
policy = GuardPolicy(retry=RetryPolicy(pause_first_s=0.0), breaker=BreakerPolicy(slow_s=0.5))
guard = Guard("stock", policy=policy, clock=clock)  # in a real program the clock is left away


@guard(safe=True)
def stock(sku: str) -> int:
    raise AssertionError(f"a test must not ask for {sku}")


def page(sku: str) -> str:
    try:
        return f"{stock(sku)} in stock"
    except BreakerOpen:
        return "ask us"


# ---- the tests


def test_the_page_says_ask_us_while_the_stock_is_away() -> None:
    with forced(guard, BreakerOpen):
        assert page("tea") == "ask us"


def test_one_broken_connection_is_not_noticed() -> None:
    with events_of(guard) as events, forced(guard, PeerReset, 3):
        assert page("tea") == "3 in stock"
    assert len(events.of(Retried)) == 1


def test_a_slow_answer_is_an_answer() -> None:
    began = clock.now
    with forced(guard, Slow(2.0, clock, then=3)):
        assert page("tea") == "3 in stock"
    assert clock.now == began + 2.0
    assert guard.snapshot().keys[0].slow == 1


if __name__ == "__main__":
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            test()
            print("passed:", name)
