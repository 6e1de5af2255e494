"""The pytest plugin, in runs of pytest of its own."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

# Whether or not the installed package announces the plugin, it is loaded once.
LOAD = ("-p", "no:budao", "-p", "budao.testkit.plugin", "-p", "no:cacheprovider", "-p", "no:hypothesispytest")


def outcomes(pytester: pytest.Pytester, text: str) -> tuple[dict[str, int], pytest.RunResult]:
    pytester.makepyfile(text)
    ran = pytester.runpytest_inprocess(*LOAD)
    return ran.parseoutcomes(), ran


def test_the_fixtures_make_a_guard_with_a_clock_events_and_ordered_endings(pytester: pytest.Pytester) -> None:
    counted, _ = outcomes(
        pytester,
        """
        import pytest
        from budao import BreakerOpen
        from budao.guard import Refused

        def test_it(budao_clock, budao_guard, budao_events, budao_forced):
            guard = budao_guard("stock")
            events = budao_events(guard)
            call = guard(lambda: 1)
            budao_clock.advance(5.0)
            assert guard.clock() >= 5.0
            budao_forced(guard, 7, BreakerOpen)
            assert call() == 7
            with pytest.raises(BreakerOpen):
                call()
            assert len(events.of(Refused)) == 1
        """,
    )
    assert counted == {"passed": 1}


def test_a_test_that_leaves_a_call_in_flight_fails_if_it_asked_for_the_check(pytester: pytest.Pytester) -> None:
    counted, ran = outcomes(
        pytester,
        """
        import pytest

        held = []

        def leave_one(guard):
            block = guard.block()
            block.__enter__()
            held.append(block)

        def test_unasked(budao_guard):
            leave_one(budao_guard("quiet"))

        @pytest.mark.usefixtures("budao_settled")
        def test_asked(budao_guard):
            leave_one(budao_guard("leaky"))

        @pytest.mark.usefixtures("budao_settled")
        def test_clean(budao_guard):
            with budao_guard("clean").block():
                pass
        """,
    )
    assert counted == {"passed": 3, "errors": 1}
    ran.stdout.fnmatch_lines(["*'leaky': 1 in flight, 0 waiting*"])


def test_importing_budao_does_not_import_pytest(pytester: pytest.Pytester) -> None:
    ran = pytester.runpython_c("import sys, budao, budao.testkit; print('pytest' in sys.modules)")
    assert ran.outlines == ["False"]
