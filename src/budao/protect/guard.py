"""The object users hold: one objective, many protected callables."""

from __future__ import annotations

import asyncio
import functools
import inspect
import random
import threading
import types
import weakref
from collections.abc import Callable, Coroutine, Hashable
from concurrent.futures import Executor, Future
from dataclasses import replace
from math import inf
from typing import Any, TypeVar, overload

from budao import aio, threads
from budao.guard import (
    NOTHING,
    Adjusted,
    Core,
    Crashed,
    Event,
    Home,
    Ladder,
    Remembered,
    Repeats,
    Rung,
    Shape,
    Steps,
    compile_call,
    signature_of,
)
from budao.model import (
    BadSettings,
    BreakerPolicy,
    CallRefused,
    GuardPolicy,
    Mode,
    Mono,
    Priority,
    Refusal,
    TimedOut,
    context,
    numbers_in,
)
from budao.protect.alerts import LOG, Alerts
from budao.protect.behind import Behind, Cast, Understudy
from budao.protect.block import Block
from budao.protect.clock import default_clock, strict
from budao.protect.kinds import context_manager_of, is_async_function
from budao.protect.said import Compiled, Said, Span, Traits, shape_of
from budao.protect.view import GuardView
from budao.settings import Change, Settings, diff
from budao.slo import Derived, Latency, Objective, Observed, Threshold, derive

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

SWEEP_S = 60.0
"""How often keys are looked through for idle ones."""

FailedIf = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]


class Guard:
    """Protects calls to one thing: a service, a database, a queue, or the work of this very server.

    State an objective and every setting is derived from it; `explain()` says how. `policy` states settings in full
    instead. Without either, the written defaults hold.

    `failed_if` says which exceptions are failures of the other side: types, or a predicate. By default every
    `Exception` is, but for refusals of a guard further in. `clock` gives monotonic seconds and `rng` the dice, for
    tests; `executor` lets sync calls be hedged.

    One guard may protect any number of functions, sync and async, on any number of threads and event loops. They share
    its state; functions or arguments that mean different resources are told apart by `key`.
    """

    def __init__(
        self,
        name: str,
        *,
        objective: Objective | None = None,
        policy: GuardPolicy | None = None,
        failed_if: FailedIf | None = None,
        clock: Callable[[], float] | None = None,
        rng: random.Random | None = None,
        executor: Executor | None = None,
    ) -> None:
        if not name:
            raise BadSettings([("name", f'{name!r} is not a name; say what is protected, such as "inventory"')])
        self.name = name
        self.clock = default_clock() if clock is None else strict(clock)
        self._objective = objective
        self._coded = policy
        self._executor = executor
        self._settings = Settings()
        self._derived = _derived(objective, policy)
        self._derived_from = objective if policy is None else None
        first = self._derived.policy
        self._home = Home(
            name,
            first,
            lock=threading.RLock(),
            rng=rng or random.Random(),
            failed_if=_predicate(failed_if),
            follower=self._follow,
            alert=Alerts().hear,
            on_fold=_folding(weakref.ref(self)),
        )
        self._plain = Core(self._home, None, Mono(self.clock()))
        self._cores: dict[Hashable, Core] = {}
        self._evicted = 0
        self._sweep_at = -inf
        self._span = Span(first.timeout.call_s if first.timeout else inf)
        self._suspended = aio.Suspended(name, self.clock)
        self._background = aio.Background(self._crashed)
        self._compiled: list[Compiled] = []
        self._compiled_kept = 32
        self._cast = Cast()
        self._probe: aio.LagProbe | None = None

    def __repr__(self) -> str:
        return f"Guard({self.name!r}, {self._plain.breaker.state.value if self._plain.breaker else 'no breaker'})"

    # -- protecting

    @overload
    def __call__(self, function: F, /) -> F: ...
    @overload
    def __call__(
        self,
        /,
        *,
        safe: bool | Callable[..., bool] = ...,
        key: Callable[..., Hashable] | None = ...,
        bad: Callable[[Any], bool] | None = ...,
        retry_after: Callable[[Any], float | None] | None = ...,
        discard: Callable[[Any], object] | None = ...,
        single_flight: bool = ...,
    ) -> Callable[[F], F]: ...
    def __call__(self, function: Callable[..., Any] | None = None, /, **said: Any) -> Any:
        """Protects a function, keeping its exact type: `@guard`, or `@guard(safe=True)`. See `protect`."""
        if function is not None:
            return self.protect(function, **said)
        return functools.partial(self.protect, **said)

    def broke(self, key: Hashable = None) -> None:
        """Something that had been counted as answered broke off later, such as the body of a reply: one more failure."""
        (self._plain if key is None else self._core(key)).broke(self.clock())

    def protect(
        self,
        function: F,
        *,
        safe: bool | Callable[..., bool] = False,
        key: Callable[..., Hashable] | None = None,
        bad: Callable[[Any], bool] | None = None,
        retry_after: Callable[[Any], float | None] | None = None,
        discard: Callable[[Any], object] | None = None,
        single_flight: bool = False,
    ) -> F:
        """The same function, guarded. Sync, async, generators, async generators, methods and context managers.

        - `safe` marks calls that may be repeated: only those are retried and hedged. A predicate sees the arguments.
        - `key` names the resource from the arguments; each key has its own breaker, places and counts.
        - `bad` says of a returned value whether it counts as a failure.
        - `retry_after` finds in an exception or a bad value the seconds the other side asked to wait.
        - `discard` gets a bad value before it is retried, to close what it holds.
        - `single_flight` lets callers with equal arguments share one call.
        """
        return self._protect(function, Said(safe=safe, key=key, bad=bad, retry_after=retry_after, discard=discard,
                                             single_flight=single_flight))  # fmt: skip

    def ladder(
        self, *, cache: Any = NOTHING, template: Any = NOTHING, empty: Any = NOTHING, safe: bool = True, **said: Any
    ) -> Callable[[F], F]:
        """Protects a function that has something to fall back on: direct, then cache, then template, then empty.

        Each rung is a value, a function of the call's own arguments, a `Remembered`, or a `Rung` that also declares
        how stale its answer may be and how long it may take. A ladder is for idempotent reads, so the call is taken to
        be safe to repeat unless `safe=False` says otherwise, and then it may not have a template.
        """
        ladder = Ladder(cache, template, empty)
        if not ladder.rungs():
            raise BadSettings([("ladder", "has no rung below the direct call; give cache, template or empty")])
        if template is not NOTHING and not safe:
            raise BadSettings([("ladder.template", "is only for idempotent reads, and safe=False says this is none")])
        return lambda function: self._protect(function, Said(safe=safe, ladder=ladder, **said))

    def block(self, key: Hashable = None, *, until: float | None = None, priority: Priority | None = None) -> Block:
        """A block of code as one call, with `with` or `async with`. `until` is an instant of `clock`.

        Raises: CallRefused on entering.
        """
        core = self._plain if key is None else self._core(key)
        return Block(core, self.clock, until, priority)

    # -- looking

    @property
    def policy(self) -> GuardPolicy:
        """The settings in force."""
        return self._home.policy

    @property
    def objective(self) -> Objective | None:
        """What good looks like, if it was said."""
        return self._settings.objective_for(self.name) or self._objective

    def explain(self) -> str:
        """Each number in force, and why."""
        derived = self._derived_under(self._settings)
        stated = self._settings.reasons_for(self.name)
        lines = [f"{self.name}: {derived.summary}"]
        for path, value in numbers_in(self.policy).items():
            shown = value.value if isinstance(value, Mode) else value
            reason = stated.get(path) or derived.reasons.get(path, "stated in the code")
            lines.append(f"  {path} = {shown}: {reason}")
        for core in self._all():
            if core.slow_s not in {inf, self.policy.breaker.slow_s if self.policy.breaker else inf}:
                where = f"[{core.label}]" if core.label else ""
                lines.append(f"  slow{where} is now above {core.slow_s:.3g} s: learned from the last calls")
        off = [path for path in derived.reasons if "." not in path and getattr(self.policy, path, 0) is None]
        lines += [f"  {path} {derived.reasons[path]}" for path in off]
        return "\n".join(lines)

    def snapshot(self) -> GuardView:
        """Everything counted so far, as a value that stays as it is."""
        now = Mono(self.clock())
        home = self._home
        keys = tuple(core.view(now) for core in self._all())
        with home.lock:
            return GuardView(
                name=self.name,
                at=now,
                policy=home.policy,
                keys=keys,
                rungs=dict(home.rungs),
                retries=home.retries,
                hedges=home.hedges,
                hedges_won=home.hedges_won,
                crashes=home.crashes,
                inner_errors=home.inner_errors,
                evicted=self._evicted,
                budget_left=home.budget.left(now),
                shed_level=home.shedder.level_at(now) if home.shedder else 0.0,
                events=tuple(home.events),
            )

    def listen(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        """Tells every event to `callback`, on the thread it happens on; returns what stops it.

        What a callback raises is counted and goes no further. It should be quick, since a call waits for it.
        """
        home = self._home
        with home.lock:
            home.listeners = (*home.listeners, callback)

        def stop() -> None:
            with home.lock:
                home.listeners = tuple(each for each in home.listeners if each is not callback)

        return stop

    def observed(self) -> Observed:
        """What has been measured lately, in the shape that `budao.slo.derive` takes. For the resource without a key."""
        view = self._plain.view(Mono(self.clock()))
        window_s = self.policy.breaker.window_s if self.policy.breaker else 10.0
        recent = view.window_ok + view.window_failed + view.window_slow
        return Observed(
            calls=view.ok + view.failed + view.slow,
            calls_per_s=recent / window_s,
            p50_s=view.p50_s or 0.0,
            p95_s=view.p95_s or 0.0,
            p99_s=view.p99_s or 0.0,
            p999_s=view.p999_s or 0.0,
            failed_share=view.window_failed / recent if recent else 0.0,
            in_flight_max=max(view.in_flight_max, view.in_flight),
        )

    # -- steering

    def obey(self, policy: GuardPolicy) -> tuple[Change, ...]:
        """Swaps the settings while calls run; windows and counts are kept. Returns what changed."""
        self._coded = policy
        return self._take(policy)

    def tune(self) -> tuple[Change, ...]:
        """Derives the settings anew from the objective and from what has been measured, and obeys them.

        Raises: BadSettings if no objective was stated.
        """
        objective = self.objective
        if objective is None:
            raise BadSettings([("objective", f"guard {self.name!r} has none; state one to derive settings from")])
        self._coded = None
        self._derived, self._derived_from = derive(objective, self.observed()), objective
        return self._take(self._settings.policy_for(self.name, self._derived.policy))

    def preview(self, settings: Settings) -> tuple[Change, ...]:
        """What `reconfigure` would change.

        Raises: BadSettings, if these settings cannot be in force together with what the code says.
        """
        return diff(self.policy, self._policy_under(settings))

    def reconfigure(self, settings: Settings) -> tuple[Change, ...]:
        """Takes the settings a file states for this guard, over those of the code. Returns what changed."""
        policy = self._policy_under(settings)
        self._settings = settings
        return self._take(policy)

    def set_mode(self, mode: Mode) -> tuple[Change, ...]:
        """Enforcing, shadow, forced open or disabled, at once and for every key."""
        breaker = self.policy.breaker or BreakerPolicy()
        return self._take(replace(self.policy, breaker=replace(breaker, mode=mode)))

    def reset(self) -> None:
        """Closes every breaker and forgets what they counted."""
        now = Mono(self.clock())
        for core in self._all():
            core.reset(now)

    def rehearse(self, gate: Callable[[], Refusal | None], understudy: Understudy) -> Callable[[], None]:
        """For tests: every try asks `gate` whether it is refused, and every protected function has an understudy.

        Returns what ends the rehearsal. `budao.testkit.forced` says it in fewer words.
        """
        if self._cast.is_rehearsing:
            raise RuntimeError(f"guard {self.name!r} is in a rehearsal already; end that one first")
        self._stage(gate, understudy)
        return functools.partial(self._stage, None, None)

    # -- in the background

    def spawn(self, coroutine: Coroutine[Any, Any, T], name: str | None = None) -> asyncio.Task[T]:
        """Starts a task that this guard owns: kept until it ends, and a crash is counted and told, never lost."""
        return self._background.spawn(coroutine, name)

    def submit(self, executor: Executor, function: Callable[..., T], *args: Any, **kwargs: Any) -> Future[T]:
        """Runs a function in an executor with this context; a crash is counted and told even if nobody looks."""
        return threads.submit(executor, self._crashed, function, *args, **kwargs)

    def thread(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> threading.Thread:
        """Starts a daemon thread with this context; a crash is counted and told, never lost."""
        return threads.thread(self._crashed, function, *args, **kwargs)

    async def close(self) -> None:
        """Cancels the tasks this guard owns and waits until they are gone."""
        if self._probe is not None:
            self._probe.close()
            self._probe = None
        await self._background.close()

    # -- inside

    def _protect(self, function: F, said: Said) -> F:
        inner: Any = function
        if isinstance(inner, staticmethod | classmethod):
            return type(inner)(self._protect(inner.__func__, said))  # type: ignore[return-value]
        rebuild = context_manager_of(inner)
        if rebuild is not None:
            return rebuild(self._protect(inner.__wrapped__, said))  # type: ignore[no-any-return]
        if not callable(inner):
            raise TypeError(f"guard {self.name!r} can protect something callable, not {inner!r}")
        guarded: Any
        find = functools.partial(self._find, said.key)
        is_async = inspect.isasyncgenfunction(inner) or is_async_function(inner)
        is_stream = inspect.isasyncgenfunction(inner) or inspect.isgeneratorfunction(inner)
        behind = Behind(inner, is_async=is_async, is_stream=is_stream)
        if is_stream:
            said.fits_a_stream()
            guarded = (aio.stream if is_async else threads.stream)(behind.call, find, self.clock)
        else:
            guarded = self._compile(behind, said)
            if said.single_flight:
                functools.update_wrapper(guarded, inner)
                guarded = (aio.single if is_async else threads.single)(guarded)
        self._cast.join(behind)
        functools.update_wrapper(guarded, inner)
        # Lives as long as somebody holds the function, and no longer. Set last: what was guarded before has one of its own.
        guarded.__budao__ = behind
        return guarded  # type: ignore[no-any-return]

    def _compile(self, behind: Behind, said: Said) -> Any:
        home, function, is_async = self._home, behind.function, behind.is_async
        repeats = Repeats(said.safe, said.bad, said.retry_after)
        steps = Steps(home, said.ladder) if said.ladder is not None else None
        signature = signature_of(function)
        name = getattr(function, "__name__", "guarded")
        bound: dict[str, Any] = {
            "_b_append": self._plain.batch.append,
            "_b_as_coroutine": aio.as_coroutine,
            "_b_clock": self.clock,
            "_b_core": self._plain,
            "_b_cores": self._cores,
            "_b_coroutine": types.CoroutineType,
            "_b_crowd": (aio.crowd if is_async else threads.crowd)(self.clock),
            "_b_find": functools.partial(self._find, said.key),
            "_b_function": function,
            "_b_in_flight": self._plain.in_flight,
            "_b_judge": repeats.is_bad,
            "_b_key": said.key,
            "_b_limit": context.deadline.get,
            "_b_reset": context.deadline.reset,
            "_b_reset_anywhere": aio.reset_anywhere,
            "_b_rest": self._suspended.rest,
            "_b_set": context.deadline.set,
            "_b_span": self._span,
        }
        traits = Traits(
            is_async, said.key is not None, said.safe is not False, said.bad is not None, said.ladder is not None
        )
        once = compile_call(self._shape_of(traits, is_repeat=True), signature, name, bound)
        if is_async:
            bound["_b_repeat"] = aio.repeat(once, repeats, said.discard, self.clock)
            bound["_b_race"] = self._suspended.race(once, repeats, said.discard)
        else:
            bound["_b_repeat"] = threads.repeat(once, repeats, said.discard, self.clock)
            bound["_b_race"] = threads.race(behind.call, once, repeats, said.discard, self._executor, self.clock)
        if steps is not None and said.ladder is not None:
            ladder = _shared(said.ladder)
            bound["_b_descend"] = (aio.descend if is_async else threads.descend)(steps, ladder, self.clock)
            bound["_b_served"] = _served(steps, self.clock)
        guarded = compile_call(self._shape_of(traits, is_repeat=False), signature, name, bound)

        behind.guarded = weakref.ref(guarded), weakref.ref(once)

        self._compiled += [
            Compiled(weakref.ref(once), traits, signature, name, is_repeat=True),
            Compiled(weakref.ref(guarded), traits, signature, name, is_repeat=False),
        ]
        if len(self._compiled) >= 2 * self._compiled_kept:
            self._forget_compiled()
        return guarded

    def _forget_compiled(self) -> None:
        """Lets go of functions that nobody holds any more; each time twice as many have gathered as were kept."""
        self._compiled = [each for each in self._compiled if each.function() is not None]
        self._compiled_kept = max(32, len(self._compiled))

    def _recompile(self) -> None:
        """Gives the functions that people hold the code for the settings in force."""
        self._forget_compiled()
        for each in self._compiled:
            function = each.function()
            if function is not None:
                shape = self._shape_of(each.traits, is_repeat=each.is_repeat)
                function.__code__ = compile_call(shape, each.signature, each.name, {}).__code__

    def _shape_of(self, traits: Traits, *, is_repeat: bool) -> Shape:
        return shape_of(traits, self.policy, is_repeat=is_repeat, can_hedge_sync=self._executor is not None)

    def _find(self, key: Callable[..., Hashable] | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Core:
        """The resource a call means. A key function that raises, or a key without a hash, means the one without key."""
        if key is None:
            return self._plain
        try:
            return self._core(key(*args, **kwargs))
        except Exception:  # noqa: BLE001 - a hook's mistake must not fail the call
            self._home.inner_errors += 1
            return self._plain

    def _core(self, key: Hashable) -> Core:
        found = self._cores.get(key)
        if found is not None:
            return found
        with self._home.lock:
            found = self._cores.get(key)
            if found is None:
                if len(self._cores) >= self.policy.keys_max:
                    self._evict()
                found = self._cores[key] = Core(self._home, key, Mono(self.clock()))
            return found

    def _evict(self) -> None:
        """Makes room for keys: an eighth at once, idle and closed ones first, those unused for longest before others."""
        cores = self._cores
        by_use = sorted(
            cores, key=lambda each: (bool(cores[each].in_flight) or not cores[each].is_clear, cores[each].fold_at)
        )
        leaving = by_use[: max(1, len(cores) - self.policy.keys_max + 1, len(cores) // 8)]
        for each in leaving:
            del cores[each]
        self._evicted += len(leaving)

    def _all(self) -> tuple[Core, ...]:
        with self._home.lock:
            return (self._plain, *self._cores.values())

    def _follow(self) -> Threshold | None:
        policy = self._home.policy if hasattr(self, "_home") else self._derived.policy
        if policy.threshold is None or policy.breaker is None:
            return None
        objective = self.objective
        anchor_s = objective.under_s if isinstance(objective, Latency) else policy.breaker.slow_s
        return Threshold(policy.threshold, anchor_s if anchor_s != inf else None)

    def _policy_under(self, settings: Settings) -> GuardPolicy:
        return settings.policy_for(self.name, self._derived_under(settings).policy)

    def _derived_under(self, settings: Settings) -> Derived:
        """What the code says, or what follows from the objective that the file states instead."""
        objective = settings.objective_for(self.name)
        return self._derived if objective is None or objective == self._derived_from else derive(objective)

    def _take(self, policy: GuardPolicy) -> tuple[Change, ...]:
        home = self._home
        with home.lock:
            before, now = home.policy, Mono(self.clock())
            changes = diff(before, policy)
            if not changes:
                return ()
            home.adopt(policy)
            if self._coded is policy:
                self._derived, self._derived_from = _derived(self._objective, policy), None
            self._span.call_s = policy.timeout.call_s if policy.timeout else inf
            for core in self._all():
                core.obey(now)
            while len(self._cores) > policy.keys_max:
                self._evict()
            self._recompile()
            home.note(Adjusted(self.name, "", now, before, policy))
        home.tell()
        return changes

    def _stage(self, gate: Callable[[], Refusal | None] | None, understudy: Understudy | None) -> None:
        self._cast.rehearse(understudy)
        with self._home.lock:
            self._home.gate = gate
            for core in self._all():
                core.refresh(Mono(self.clock()))

    def _crashed(self, where: str, error: BaseException) -> None:
        if isinstance(error, CallRefused):
            where += " (refused)"
        home = self._home
        trace_id = context.trace_id()
        LOG.error("%s: %s crashed, trace %s", self.name, where, trace_id or "unknown", exc_info=error)
        with home.lock:
            home.crashes += 1
            text = f"{type(error).__name__}: {error}"[:500]
            home.note(Crashed(self.name, "", self.clock(), where, text, trace_id))
        home.tell()

    def _folded(self, now: Mono) -> None:
        """Some resource was just counted, so a call is near: a moment for what has no caller of its own."""
        if self._home.shedder is not None:
            self._listen_to_lag()
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_S
            for core in tuple(self._cores.values()):
                core.rest_if_idle(now)

    def _listen_to_lag(self) -> None:
        """Measures the running loop's lag for shedding; one probe, on the loop that last opened a block."""
        if self._probe is not None and not self._probe.is_dead:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        held = weakref.ref(self)

        def on_lag(lag_s: float) -> bool:
            guard = held()
            return guard is not None and guard._lagged(lag_s)  # noqa: SLF001 - held weakly, but it is this very object

        self._probe = aio.LagProbe(loop, on_lag)

    def _lagged(self, lag_s: float) -> bool:
        shedder, now = self._home.shedder, Mono(self.clock())
        if shedder is None:
            return False
        cores = self._all()
        standing = any(core.waiting is not None and core.waiting.is_standing(now) for core in cores)
        with self._home.lock:
            was = shedder.level_at(now)
            shedder.observe(lag_s, standing, now)
            if (was > 0.0) != (shedder.level_at(now) > 0.0):
                for core in cores:
                    core.refresh(now)
        return True


def _derived(objective: Objective | None, policy: GuardPolicy | None) -> Derived:
    if policy is not None:
        stated = dict.fromkeys(numbers_in(policy), "stated in the code")
        return Derived(policy=policy, reasons=stated, summary="settings stated in the code")
    if objective is None:
        written = GuardPolicy()
        reasons = dict.fromkeys(numbers_in(written), "written default")
        return Derived(policy=written, reasons=reasons, summary="no objective stated, so the written defaults hold")
    return derive(objective)


def _predicate(failed_if: FailedIf | None) -> Callable[[Exception], bool]:
    if failed_if is None:
        return lambda _: True
    if isinstance(failed_if, type | tuple):
        # The guard's own word that no answer came in time is a failure, whatever the errors of the other side are called.
        kinds = (TimedOut, *(failed_if if isinstance(failed_if, tuple) else (failed_if,)))
        return lambda error: isinstance(error, kinds)
    return failed_if


def _shared(ladder: Ladder) -> Ladder:
    """The same ladder, with a cache function that callers with equal arguments share."""
    rung = ladder.cache if isinstance(ladder.cache, Rung) else Rung(ladder.cache)
    if rung.answer is NOTHING or isinstance(rung.answer, Remembered) or not callable(rung.answer):
        return ladder
    single = aio.single if is_async_function(rung.answer) else threads.single
    return replace(ladder, cache=replace(rung, answer=single(rung.answer)))


def _folding(held: weakref.ref[Guard]) -> Callable[[Mono], None]:
    def on_fold(now: Mono) -> None:
        guard = held()
        if guard is not None:
            guard._folded(now)  # noqa: SLF001 - held weakly, but it is this very object

    return on_fold


def _served(steps: Steps, clock: Callable[[], float]) -> Callable[[Any, tuple[Any, ...], dict[str, Any]], None]:
    return lambda result, args, kwargs: steps.direct(result, args, kwargs, clock())
