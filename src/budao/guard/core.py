"""The state of one guarded resource, in the shape that a compiled call wants.

A call that goes well while all is quiet touches plain slots of its `Core` and appends one float; it takes no lock.
Everything else (refusals, failures, slow calls, transitions, and the fold that counts the quiet calls) comes here and
happens under the lock of the guard.

Why counts are exact under threads: `batch.append` and `in_flight[...] = ...` are atomic, appends only ever add at the
end, and only `fold`, which holds the lock, removes from the front exactly what it has counted.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from math import inf, nextafter
from typing import Any, Protocol

from budao.guard.breaker import Breaker, Move, Moved, Permit, State
from budao.guard.events import Refused, Turned
from budao.guard.home import Home
from budao.guard.latencies import RECENT_SIZE, Latencies
from budao.guard.limiter import Limiter
from budao.guard.throttle import Throttle
from budao.guard.waiting import Placed, TurnedAway, WaitingRoom
from budao.measure import HistogramSnapshot, TokenBucket
from budao.model import (
    REFUSED_AS,
    BreakerOpen,
    BulkheadPolicy,
    CallRefused,
    Dropped,
    Ending,
    GuardPolicy,
    Mode,
    Mono,
    Outcome,
    Refusal,
    Why,
    context,
)

IDLE_S = 600.0
"""A resource that nobody called for so long gives most of its memory back."""

NO_LIMIT = 1 << 60
"""More calls than can ever be in flight."""

SAMPLES_MAX = 30
"""Durations that one fold keeps for learning; `RECENT_SIZE` of them are the most that one period learns from."""

EVERY_S = 0.1
"""Quiet calls are counted at least so often while there are any."""

EVERY_MIN_S = 0.0002
"""And not more often than this, however fast they come."""

BATCH_AIM = 1024
"""Quiet calls that one fold should find at most. Busier resources are folded more often."""

SENT = None
"""In flight, and the clock is running."""

STREAMING = "streaming"
"""In flight, and the first item has come: it holds its place, but is not late."""


class Waiter(Protocol):
    """Somebody who waits for a place; a shell's future or event behind it."""

    def wake(self, answer: float | Refusal) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyView:
    """One resource of a guard at one instant.

    `in_flight_max` is the most that a fold has seen, and a peak between two folds goes unseen.
    """

    key: str
    state: State
    generation: int
    since: Mono
    window_ok: int
    window_failed: int
    window_slow: int
    in_flight: int
    in_flight_max: int
    waiting: int
    calls_max: int | None
    ok: int
    failed: int
    slow: int
    dropped: int
    stale: int
    broken: int
    refused: dict[Why, int]
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    p999_s: float | None
    slow_s: float
    latency: HistogramSnapshot | None


class Core:
    """One guarded resource.

    The slots a compiled call reads: `quiet_until` (calls that start and end before this instant need nobody's leave;
    -inf while something stands in the way, and otherwise `fold_at`, when somebody must fold), `since` (calls that
    started earlier belong to an older generation), `slow_s`, `calls_max`, `hedge_s`.

    Cost: about 1.5 KiB while idle.
    """

    __slots__ = (
        "_folded_at",
        "_learn_at",
        "_learn_s",
        "_number",
        "_odd",
        "_sample",
        "_told",
        "_unlearned",
        "batch",
        "breaker",
        "broken",
        "bucket",
        "calls_max",
        "dropped",
        "failed",
        "fold_at",
        "follower",
        "hedge_s",
        "home",
        "in_flight",
        "in_flight_max",
        "is_clear",
        "key",
        "latencies",
        "limiter",
        "ok",
        "peak",
        "quiet_until",
        "recently_failed",
        "refused",
        "shut_count",
        "shut_until",
        "since",
        "slow",
        "slow_s",
        "stale",
        "throttle",
        "waiters",
        "waiting",
    )

    def __init__(self, home: Home, key: Hashable, now: Mono) -> None:
        policy = home.policy
        self.home = home
        self.key = key
        self.batch: list[float] = []
        self.in_flight: dict[float, object] = {}
        self.breaker = Breaker(policy.breaker, now) if policy.breaker else None
        self.limiter = Limiter(policy.limit) if policy.limit else None
        self.throttle = Throttle(policy.throttle) if policy.throttle else None
        self.bucket = _bucket(policy)
        self.waiting = _waiting(policy)
        self.waiters: dict[int, Waiter] = {}
        self.follower = home.follower()
        self.latencies = Latencies()
        self.ok = self.failed = self.slow = self.dropped = self.stale = self.broken = 0
        self.refused: dict[Why, int] | None = None
        self.peak = self.recently_failed = self._number = self.shut_count = self.in_flight_max = 0
        self._odd: list[float] | None = None
        self._told = self._unlearned = 0
        self._sample: list[float] | None = None
        self.since = -inf
        self.hedge_s = inf
        self._learn_s = _period_s(policy)
        self._folded_at = now
        self.fold_at = now + min(EVERY_S, self._learn_s)
        self._learn_at = now + self._learn_s
        self._publish(now)

    # -- before the call

    def enter(self, now: float, until: float = inf) -> Permit | None:
        """Leave for a call that could not take the quiet path. None is the leave that all quiet calls share.

        Raises: CallRefused.
        """
        home = self.home
        if now < self.shut_until and not home.listeners:
            # The way of a flood of calls to something that is down: no event, no table, hardly an object.
            with home.lock:
                self.shut_count += 1
            raise BreakerOpen(home.name if self.key is None else self.target, self.shut_until - now)
        with home.lock:
            if now >= self.fold_at:
                self._fold(Mono(now), is_due=True)
            permit: Permit | None = None
            if min(until, context.deadline.get()) <= now:
                refusal: Refusal | None = Refusal(Why.TOO_LATE)
            elif self.is_clear:
                return None
            else:
                permit, refusal = self._decide(Mono(now))
            if refusal is not None:
                self.note_refusal(refusal, now)
        if home.news:
            home.tell()
        if refusal is not None:
            raise self.refusal_error(refusal)
        return permit

    def _decide(self, now: Mono) -> tuple[Permit | None, Refusal | None]:
        home, breaker = self.home, self.breaker
        refusal = home.gate() if home.gate is not None else None
        if refusal is not None:
            return None, refusal
        if home.policy.breaker is not None and home.policy.breaker.mode is Mode.FORCED_OPEN:
            return None, Refusal(Why.FORCED_OPEN, home.policy.breaker.rest_s)
        if home.shedder is not None:
            refusal = home.shedder.refuses(context.priority.get(), now, home.rng)
            if refusal is not None:
                return None, refusal
        permit: Permit | None = None
        if breaker is not None and breaker.policy.mode is not Mode.DISABLED and breaker.state is not State.CLOSED:
            moved = breaker.wake(now)
            if moved is not None:
                self._turned(moved, now)
                self._publish(now)
            answer = breaker.admit(now, home.rng)
            if isinstance(answer, Permit):
                permit = answer if answer.is_probe else None
            elif breaker.policy.mode is Mode.SHADOW:
                self._count(answer.why)
                home.note(Refused(home.name, self.label, now, answer, shadow=True))
                permit = Permit(-1, now)  # a generation that never was: what comes back teaches nothing
            else:
                return None, answer
        refusal = self.throttle.refuses(now, home.rng) if self.throttle else None
        if refusal is not None and permit is not None and breaker is not None:
            breaker.settle(permit, Dropped.NOT_SENT, now)
        return permit, refusal

    def pay(self, permit: Permit | None, now: float) -> None:
        """Takes one call from the rate limit.

        Raises: NoRoom; the permit is then given back.
        """
        bucket = self.bucket
        if bucket is None:  # switched off a moment ago
            return
        with self.home.lock:
            if bucket.take(1, Mono(now)):
                return
            refusal = Refusal(Why.RATE, bucket.ready_in_s(1, Mono(now)))
        raise self.refuse(refusal, permit, now)

    def refuse(self, refusal: Refusal, permit: Permit | None, now: float) -> CallRefused:
        """Counts a refusal that a shell decided on, gives the permit back, and returns the error to raise."""
        home = self.home
        with home.lock:
            if permit is not None and self.breaker is not None:
                self.breaker.settle(permit, Dropped.NOT_SENT, Mono(now))
            self.note_refusal(refusal, now)
        if home.news:
            home.tell()
        return self.refusal_error(refusal)

    def refusal_error(self, refusal: Refusal) -> CallRefused:
        """The exception for a refusal."""
        return REFUSED_AS[refusal.why](self.target, refusal)

    @property
    def target(self) -> str:
        """What errors call this resource."""
        return self.home.name if self.key is None else f"{self.home.name}[{self.label}]"

    @property
    def label(self) -> str:
        """The key as text, bounded, for errors and metrics; "" for the resource without one."""
        return "" if self.key is None else str(self.key)[:200]

    # -- waiting for a place

    def crowded(self, started: float) -> Refusal | None:
        """Takes a place back that was one too many. None means: there is room to wait in, so `join`."""
        with self.home.lock:
            del self.in_flight[started]
            self.peak = max(self.peak, len(self.in_flight))
            if self.waiting is None:
                typical_s = self.latencies.recent.quantile(0.5) or 0.0
                return Refusal(Why.LIMITED if self.limiter else Why.NO_ROOM, typical_s)
        return None

    def join(self, waiter: Waiter, until: float, now: float) -> int:
        """Waits for a place. The waiter is woken with the instant its call starts, or with a refusal."""
        with self.home.lock:
            assert self.waiting is not None, "only a guard with a waiting room is asked to wait"
            self._number += 1
            number = self._number
            self.waiters[number] = waiter
            self._wake(self.waiting.join(number, context.priority.get(), Mono(until), Mono(now)), now)
            self._fill(now)
        return number

    def leave(self, number: int, now: float) -> None:
        """Stops waiting, if no answer was given yet."""
        with self.home.lock:
            if self.waiters.pop(number, None) is not None and self.waiting is not None:
                self.waiting.leave(number, Mono(now))

    def give_up(self, number: int, answer: float | Refusal | None, permit: Permit | None, now: float) -> None:
        """The caller was cancelled while it waited. A place that had just been handed to it is handed on."""
        with self.home.lock:
            self.leave(number, now)
            self.dropped += 1
            if isinstance(answer, float):
                self.in_flight.pop(answer, None)
                self._fill(now)
            if permit is not None and self.breaker is not None:
                self.breaker.settle(permit, Dropped.CANCELLED, Mono(now))

    def release(self, now: float) -> None:
        """Hands places that came free to those who wait."""
        with self.home.lock:
            self._fill(now)

    def _fill(self, now: float) -> None:
        while self.waiting is not None and len(self.waiting) and len(self.in_flight) < self.calls_max:
            self._wake(self.waiting.next(Mono(now)), now)

    def _wake(self, effects: tuple[Placed | TurnedAway, ...], now: float) -> None:
        for effect in effects:
            waiter = self.waiters.pop(effect.number)
            if isinstance(effect, TurnedAway):
                waiter.wake(effect.refusal)
                continue
            started = now
            while started in self.in_flight:
                started = nextafter(started, inf)
            self.in_flight[started] = SENT  # the place is handed over here, so that no newcomer slips in between
            waiter.wake(started)

    # -- after the call

    def done(self, permit: Permit | None, started: float, now: float, *, failed: bool = False) -> None:
        """Settles a call that ended, but not quietly: slow, judged bad, a probe, or in need of a fold."""
        self._settle(permit, started, Outcome(max(0.0, now - started), failed), now)

    def fail(self, permit: Permit | None, started: float, error: BaseException, now: float) -> bool:
        """Settles a call that raised. True if the exception is a failure of the other side."""
        ending: Ending
        if not isinstance(error, Exception):
            ending = Dropped.CANCELLED
        elif isinstance(error, CallRefused):
            ending = Dropped.NOT_SENT
        else:
            ending = Outcome(max(0.0, now - started), self.home.is_failure(error))
        self._settle(permit, started, ending, now)
        return isinstance(ending, Outcome) and ending.failed

    def drop(self, permit: Permit | None, started: float, why: Dropped, now: float) -> None:
        """Settles a call that says nothing about the other side."""
        self._settle(permit, started, why, now)

    def broke(self, now: float, started: float = inf, permit: Permit | None = None) -> None:
        """A stream that had been counted as good broke off: one more failed call, on its own.

        Without `started` it is taken for one of the present generation.
        """
        with self.home.lock:
            self.broken += 1
            # The permit of a probe was given back with the first item; what is left of it is its generation.
            whole = Permit(permit.generation, Mono(started)) if permit is not None else None
            self._tell(whole, started, Outcome(0.0, failed=True), Mono(now))
            self._publish(Mono(now))
        self.home.tell()

    def _settle(self, permit: Permit | None, started: float, ending: Ending, at: float) -> None:
        home, now = self.home, Mono(at)
        with home.lock:
            if now >= self.fold_at:
                self._fold(now, is_due=True)
            breaker = self.breaker
            if isinstance(ending, Dropped):
                self.dropped += 1
                if permit is not None and breaker is not None:
                    breaker.settle(permit, ending, now)
            else:
                home.budget.deposit(1, now)
                self._learn(ending)
                if self.throttle is not None:
                    self.throttle.count(1, 0 if ending.failed else 1, now)
                self._tell(permit, started, ending, now)
                self._publish(now)
        if home.news:
            home.tell()

    def _tell(self, permit: Permit | None, started: float, ending: Outcome, now: Mono) -> None:
        """Tells the breaker how a call ended, and in which generation that call was admitted."""
        breaker = self.breaker
        if breaker is None or breaker.policy.mode is Mode.DISABLED:
            return
        if permit is None:
            permit = Permit(breaker.generation if started >= self.since else -1, Mono(started))
        self.stale += permit.generation != breaker.generation
        self._tell_quiet(now)
        moved = breaker.settle(permit, ending, now)
        if moved is not None:
            self._turned(moved, now)

    def _learn(self, outcome: Outcome) -> None:
        if outcome.failed:
            self.failed += 1
            self.recently_failed += 1
            return
        if outcome.took_s > self.slow_s:
            self.slow += 1
        else:
            self.ok += 1
        self.latencies.add((outcome.took_s,))
        if self._odd is None:
            self._odd = []
        if len(self._odd) < RECENT_SIZE:
            self._odd.append(outcome.took_s)

    # -- counting

    def fold(self, now: float) -> None:
        """Counts the quiet calls and lets time do its part."""
        with self.home.lock:
            self._fold(Mono(now))
        if self.home.news:
            self.home.tell()

    def _fold(self, now: Mono, *, is_due: bool = False) -> None:
        """Counts the quiet calls, and about once a period learns from them.

        `is_due` says that nobody looks: it is only time to count, so learning may wait for its own time.
        """
        at = Mono(min(now, self.fold_at))
        learns = not is_due or now >= self._learn_at
        self._tell_quiet(at)
        count, self._told = self._told, 0
        if count:
            chunk = self.batch[:count]
            del self.batch[:count]
            self.ok += count
            self.home.budget.deposit(count, at)
            if self.throttle is not None:
                self.throttle.count(count, count, at)
            self._unlearned += count
            if self._sample is None:
                self._sample = []
            room = RECENT_SIZE - len(self._sample) if learns else min(RECENT_SIZE - len(self._sample), SAMPLES_MAX)
            if room > 0:
                self._sample += chunk[:: -(-count // room)]
        # As many calls as one fold should find, at the rate they came; a burst out of silence is seen soon.
        per_call_s = max(0.0, now - self._folded_at) / max(1, count)
        self.fold_at = now + min(EVERY_S, self._learn_s, max(EVERY_MIN_S, per_call_s * BATCH_AIM))
        self._folded_at = now
        if not learns:
            self.quiet_until = self.fold_at if self.is_clear else -inf
            return
        self._learn_at = now + self._learn_s
        self._learn_all(now)

    def _learn_all(self, now: Mono) -> None:
        """Lets everything that learns have its share of what was measured since it last did."""
        sample, self._sample = self._sample or [], None
        keep, self._odd = sample + (self._odd or []), None
        count, self._unlearned = self._unlearned, 0
        if sample:
            each = count // len(sample)
            self.latencies.add(sample[:-1], each)
            self.latencies.add(sample[-1:], count - each * (len(sample) - 1))
        if keep and self.follower is not None:
            is_ill = self.breaker is not None and self.breaker.state is not State.CLOSED
            self.follower.feed(keep, now, alert_stands=is_ill)
        if self.limiter is not None:
            # The samples may be one in many; the failures beside them must be thinned alike.
            failed = -(-self.recently_failed * len(keep) // max(1, len(keep), count))
            self.limiter.learn(keep, max(self.peak, len(self.in_flight)), failed if keep else self.recently_failed, now)
        self.in_flight_max = max(self.in_flight_max, self.peak, len(self.in_flight))
        self.peak = self.recently_failed = 0
        self.home.on_fold(now)
        hedge = self.home.policy.hedge
        if hedge is not None and len(self.latencies.recent) >= hedge.samples_min:
            self.hedge_s = max(hedge.delay_min_s, self.latencies.recent.quantile(hedge.quantile) or 0.0)
        if self.breaker is not None and self.breaker.policy.mode is not Mode.DISABLED:
            moved = self.breaker.look(self._stuck(now), now)
            if moved is not None:
                self._turned(moved, now)
        self._publish(now)

    def _tell_quiet(self, at: Mono) -> None:
        """Tells the breaker of quiet calls it has not heard of. Due before it judges: failures alone look like an outage."""
        count, breaker = len(self.batch), self.breaker
        if count > self._told and breaker is not None and breaker.policy.mode is not Mode.DISABLED:
            breaker.learn_ok(count - self._told, at)
        self._told = count

    def _stuck(self, now: Mono) -> int:
        """How many calls are in flight that have already taken too long."""
        line = now - self.slow_s
        since = self.since
        return sum(1 for at, what in self.in_flight.copy().items() if since <= at < line and what is not STREAMING)

    def _turned(self, moved: Moved, now: float) -> None:
        home = self.home
        if moved.move is not Move.RAMP:
            self.since = now
            self._told = len(self.batch)  # these belong to the last generation, and the new one never hears of them
        home.note(Turned(home.name, self.label, now, moved))

    def _publish(self, now: Mono) -> None:
        """Brings the slots that compiled calls read up to date."""
        policy = self.home.policy
        breaker = self.breaker
        if self.follower is not None and breaker is not None:
            breaker.slow_s = self.follower.slow_s
        self.slow_s = breaker.slow_s if breaker is not None else inf
        calls_max = policy.bulkhead.calls_max if policy.bulkhead else NO_LIMIT
        self.calls_max = min(calls_max, self.limiter.calls_max) if self.limiter else calls_max
        mode = breaker.policy.mode if breaker is not None else Mode.DISABLED
        self.is_clear = (
            self.home.gate is None
            and mode is not Mode.FORCED_OPEN
            and (breaker is None or mode is Mode.DISABLED or breaker.state is State.CLOSED)
            and (self.throttle is None or self.throttle.share_at(now) == 0.0)
            and (self.home.shedder is None or self.home.shedder.level_at(now) == 0.0)
        )
        self.quiet_until = self.fold_at if self.is_clear else -inf
        is_shut = breaker is not None and mode is Mode.ENFORCING and breaker.state is State.OPEN
        self.shut_until = breaker.rests_until if is_shut and breaker is not None else -inf

    def note_refusal(self, refusal: Refusal, now: float) -> None:
        """Counts a refusal. The caller holds the lock."""
        self._count(refusal.why)
        home = self.home
        # Refusals come in floods: without a listener they are only counted.
        if home.listeners:
            home.news.append(Refused(home.name, self.label, now, refusal))

    def _refused(self) -> dict[Why, int]:
        counts = dict(self.refused or {})
        if self.shut_count:
            counts[Why.BREAKER_OPEN] = counts.get(Why.BREAKER_OPEN, 0) + self.shut_count
        return counts

    def _count(self, why: Why) -> None:
        if self.refused is None:
            self.refused = {}
        self.refused[why] = self.refused.get(why, 0) + 1

    # -- people and settings

    def rest_if_idle(self, now: Mono) -> None:
        """Gives memory back if nobody has called for long: recent durations, and what was learned from them."""
        with self.home.lock:
            if now - self._folded_at < IDLE_S or self.in_flight:
                return
            if self.batch:
                self._fold(now)
            self.latencies.rest()
            self.follower = self.home.follower()
            self.hedge_s = inf
            self._publish(now)

    def refresh(self, now: Mono) -> None:
        """Something all resources share has changed."""
        with self.home.lock:
            self._publish(now)

    def obey(self, now: Mono) -> None:
        """Takes the settings of the guard while calls run, and keeps every window it can."""
        with self.home.lock:
            self._fold(now)
            policy = self.home.policy
            self.breaker = _retuned(self.breaker, policy.breaker, lambda new: Breaker(new, now), now)
            self.throttle = _retuned(self.throttle, policy.throttle, Throttle, now)
            if policy.limit is None:
                self.limiter = None
            elif self.limiter is None:
                self.limiter = Limiter(policy.limit)
            else:
                self.limiter.obey(policy.limit)
            if policy.rate is not None and self.bucket is not None:
                self.bucket.retune(now, rate_per_s=policy.rate.calls_per_s, burst=policy.rate.burst)
            else:
                self.bucket = _bucket(policy)
            if self.waiting is None or not self.waiters:
                self.waiting = _waiting(policy)
            else:
                self.waiting.obey(policy.bulkhead or BulkheadPolicy())
            self.follower = self.home.follower()
            self.hedge_s = inf
            self._learn_s = _period_s(policy)
            self.fold_at = now
            self._publish(now)
            self._fill(now)

    def reset(self, now: Mono) -> None:
        """A person knows better: closes the breaker and forgets what it counted."""
        with self.home.lock:
            moved = self.breaker.reset(now) if self.breaker is not None else None
            self._told = len(self.batch)
            if moved is not None:
                self._turned(moved, now)
            self._publish(now)
        self.home.tell()

    def view(self, now: Mono) -> KeyView:
        """This resource at one instant. Folds first, which counts what has happened and changes nothing else."""
        self.fold(now)
        with self.home.lock:
            breaker, recent = self.breaker, self.latencies.recent
            ok, failed, slow = breaker.counts_at(now) if breaker is not None else (0, 0, 0)
            return KeyView(
                key=self.label,
                state=breaker.state_at(now) if breaker is not None else State.CLOSED,
                generation=breaker.generation if breaker is not None else 0,
                since=breaker.since if breaker is not None else now,
                window_ok=ok,
                window_failed=failed,
                window_slow=slow,
                in_flight=len(self.in_flight),
                in_flight_max=self.in_flight_max,
                waiting=len(self.waiters),
                calls_max=None if self.calls_max == NO_LIMIT else self.calls_max,
                ok=self.ok,
                failed=self.failed,
                slow=self.slow,
                dropped=self.dropped,
                stale=self.stale,
                broken=self.broken,
                refused=self._refused(),
                p50_s=recent.quantile(0.5),
                p95_s=recent.quantile(0.95),
                p99_s=recent.quantile(0.99),
                p999_s=recent.quantile(0.999),
                slow_s=self.slow_s,
                latency=self.latencies.snapshot(),
            )


def _retuned(old: Any, policy: Any, make: Callable[[Any], Any], now: Mono) -> Any:
    """The machine under new settings: gone, new, or the old one, which keeps what it has counted."""
    if policy is None:
        return None
    if old is None:
        return make(policy)
    old.obey(policy, now)
    return old


def _bucket(policy: GuardPolicy) -> TokenBucket | None:
    rate = policy.rate
    return TokenBucket(rate_per_s=rate.calls_per_s, burst=rate.burst) if rate is not None else None


def _waiting(policy: GuardPolicy) -> WaitingRoom | None:
    bulkhead = policy.bulkhead
    return WaitingRoom(bulkhead) if bulkhead is not None and bulkhead.waiting_max else None


def _period_s(policy: GuardPolicy) -> float:
    """How often the quiet calls are counted: once a bucket, and at least once a second."""
    breaker = policy.breaker
    return min(1.0, breaker.window_s / breaker.buckets) if breaker is not None else 1.0
