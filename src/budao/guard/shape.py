"""What a compiled call is made of, and the source text it is compiled from.

One function is generated for each protected function. It has the exact signature of the original, and holds only the
lines its settings need: nesting one wrapper for each part would cost a call each, and `*args, **kwargs` cost as much as
the rest of the guard.
"""

from __future__ import annotations

import inspect
import linecache
import sys
from collections.abc import Callable
from dataclasses import dataclass
from keyword import iskeyword
from typing import Any

HAS_GIL: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
"""Whether this is an ordinary build of CPython."""

PREFIX = "_b_"
"""Names of the guard inside a generated function start with this; parameters of users hardly ever do."""

BUILTINS = frozenset({"BaseException", "Exception", "StopIteration", "len", "type"})
"""What generated lines mean by these names, a parameter of the same name must not hide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Which lines a compiled call needs. Settings that only change numbers keep the shape."""

    is_async: bool = False
    keyed: bool = False
    """The resource depends on the arguments."""
    timeout: bool = False
    pass_on: bool = False
    """The deadline is put into the context for whoever is called further in."""
    rate: bool = False
    """Calls a second are limited."""
    room: bool = False
    """Places are limited."""
    waits: bool = False
    """Calls may wait for a place."""
    retry: bool = False
    hedge: bool = False
    judged: bool = False
    """A returned value may count as a failure."""
    ladder: bool = False


@dataclass(frozen=True, slots=True)
class Signature:
    """Parameters and arguments as source text, and the defaults behind them."""

    parameters: str
    arguments: str
    packed: str
    """The arguments as one tuple and one dict, for the rare paths that carry them along."""
    defaults: tuple[object, ...] | None
    keyword_defaults: dict[str, object] | None


ANY = Signature("*_b_args, **_b_kwargs", "*_b_args, **_b_kwargs", "_b_args, _b_kwargs", None, None)
"""Fits every callable, and costs about 50 ns more than an exact one."""


def signature_of(function: Callable[..., object]) -> Signature:
    """The exact signature where it can be had, and `ANY` elsewhere."""
    if not inspect.isfunction(function) or hasattr(function, "__signature__") or hasattr(function, "__wrapped__"):
        return ANY
    parameters = inspect.signature(function).parameters.values()
    if any(each.name.startswith(PREFIX) or each.name in BUILTINS for each in parameters):
        return ANY
    text: list[str] = []
    arguments: list[str] = []
    positional: list[str] = []
    by_keyword: list[str] = []
    slash_due = star_seen = False
    for each in parameters:
        name, default = each.name, "" if each.default is each.empty else "=None"
        if slash_due and each.kind is not each.POSITIONAL_ONLY:
            text.append("/")
            slash_due = False
        match each.kind:
            case each.POSITIONAL_ONLY | each.POSITIONAL_OR_KEYWORD:
                slash_due = each.kind is each.POSITIONAL_ONLY
                text.append(name + default)
                arguments.append(name)
                positional.append(name)
            case each.VAR_POSITIONAL:
                star_seen = True
                text.append("*" + name)
                arguments.append("*" + name)
                positional.append("*" + name)
            case each.KEYWORD_ONLY:
                if not star_seen:
                    text.append("*")
                    star_seen = True
                text.append(name + default)
                arguments.append(f"{name}={name}")
                by_keyword.append(f"{name!r}: {name}")
            case each.VAR_KEYWORD:
                text.append("**" + name)
                arguments.append("**" + name)
                by_keyword.append("**" + name)
    if slash_due:
        text.append("/")
    args = "(" + "".join(each + ", " for each in positional) + ")"
    packed = f"{args}, {{{', '.join(by_keyword)}}}"
    return Signature(", ".join(text), ", ".join(arguments), packed, function.__defaults__, function.__kwdefaults__)


FREE = (
    "_b_append", "_b_as_coroutine", "_b_clock", "_b_core", "_b_cores", "_b_coroutine", "_b_crowd", "_b_descend", "_b_find", "_b_function", "_b_in_flight", "_b_judge", "_b_key", "_b_limit",
    "_b_race", "_b_repeat", "_b_reset", "_b_reset_anywhere", "_b_rest", "_b_served", "_b_set", "_b_span",
)  # fmt: skip
"""What a generated function closes over. Always all of them, so that the code of a function that people already hold
can be exchanged for code of another shape: Python allows that between codes with the same free variables."""


def source_of(shape: Shape, signature: Signature, name: str) -> str:
    """The source of one compiled call, inside a maker that binds what it closes over."""
    lines = [f"def _b_make({', '.join(FREE)}):"]
    kind = "async def" if shape.is_async else "def"
    is_fit = name.isidentifier() and not iskeyword(name) and not name.startswith(PREFIX) and name not in BUILTINS
    name = name if is_fit else "guarded"
    lines.append(f"    {kind} {name}({signature.parameters}):")
    body = _call(shape, signature)
    if shape.ladder:
        wait = "await " if shape.is_async else ""
        body = [
            "try:",
            *_indented(body),
            "except Exception as _b_error:",
            "    _b_problem = _b_error",
            f"return {wait}_b_descend(_b_problem, {signature.packed})",
        ]
    lines += ["        " + line for line in body]
    # Never runs; it makes every name a free variable, whatever the shape.
    lines.append(f"        {', '.join(FREE)}")
    lines.append(f"    return {name}")
    return "\n".join(lines) + "\n"


def _call(shape: Shape, signature: Signature) -> list[str]:
    wait = "await " if shape.is_async else ""
    core = "_b_core"
    lines: list[str] = []
    if shape.keyed:
        core = "_b_here"
        lines += [
            "try:",
            f"    _b_here = _b_cores[_b_key({signature.arguments})]",
            "except Exception:",
            f"    _b_here = _b_find({signature.packed})",
        ]
    lines += [
        "_b_started = _b_clock()",
        f"if _b_started < {core}.quiet_until and _b_limit() > _b_started:",
        "    _b_permit = None",
        "else:",
        f"    _b_permit = {core}.enter(_b_started)",
    ]
    in_flight = f"{core}.in_flight" if shape.keyed else "_b_in_flight"
    if shape.rate:
        lines.append(f"{core}.pay(_b_permit, _b_started)")
    lines.append(f"{in_flight}[_b_started] = None")
    if shape.room:
        lines += [
            f"if len({in_flight}) > {core}.calls_max{f' or {core}.waiters' if shape.waits else ''}:",
            f"    _b_started = {wait}_b_crowd({core}, _b_permit, _b_started)",
        ]
    if shape.timeout or shape.pass_on:
        lines += [
            "_b_until = _b_started + _b_span.call_s",
            "_b_outer = _b_limit()",
            "if _b_outer < _b_until:",
            "    _b_until = _b_outer",
        ]
    if shape.pass_on:
        lines.append("_b_token = _b_set(_b_until)")
    lines += ["try:", *_indented(_send(shape, signature, core)), "except BaseException as _b_error:"]
    # Without the interpreter's lock two threads may read the same instant, and then one of them finds its entry gone.
    restore = [f"del {in_flight}[_b_started]" if HAS_GIL else f"{in_flight}.pop(_b_started, None)"]
    if shape.waits:
        restore += [f"if {core}.waiters:", f"    {core}.release(_b_clock())"]
    # A coroutine that nobody awaits to the end is closed by the collector, in some other context than its own.
    lines += _indented([*restore, *(["_b_reset_anywhere(_b_token)"] if shape.pass_on else [])])
    if shape.pass_on:
        restore.insert(0, "_b_reset(_b_token)")
    if shape.retry:
        lines += [
            f"    if not {core}.fail(_b_permit, _b_started, _b_error, _b_clock()):",
            "        raise",
            "    _b_problem = _b_error",
            "else:",
            *_indented(_succeed(shape, signature, core, restore)),
            *_finish(shape, signature, f"{wait}_b_repeat({core}, _b_problem, None, _b_started, {signature.packed})"),
        ]
    else:
        lines += [f"    {core}.fail(_b_permit, _b_started, _b_error, _b_clock())", "    raise"]
        lines += _succeed(shape, signature, core, restore)
    return lines


def _send(shape: Shape, signature: Signature, core: str) -> list[str]:
    """The lines that make the call itself."""
    call = f"_b_function({signature.arguments})"
    if not shape.is_async:
        if shape.hedge:
            return [f"_b_result = _b_race({core}, _b_started, {signature.packed})"]
        return [f"_b_result = {call}"]
    if not (shape.timeout or shape.hedge):
        return [f"_b_result = await {call}"]
    # The coroutine is stepped once by hand: most of what a timer costs is arming it, and a call that never suspends
    # needs none.
    until = "_b_until" if shape.timeout else "None"
    rest = f"_b_race({core}, _b_waiting, _b_first, _b_started, {until}, {signature.packed})"
    if not shape.hedge:
        rest = f"_b_rest({core}, _b_waiting, _b_first, _b_started, {until})"
    return [
        f"_b_waiting = {call}",
        "if type(_b_waiting) is not _b_coroutine:",
        "    _b_waiting = _b_as_coroutine(_b_waiting)",
        "try:",
        "    _b_first = _b_waiting.send(None)",
        "except StopIteration as _b_stop:",
        "    _b_result = _b_stop.value",
        "else:",
        f"    _b_result = await {rest}",
    ]


def _succeed(shape: Shape, signature: Signature, core: str, restore: list[str]) -> list[str]:
    wait = "await " if shape.is_async else ""
    append = f"{core}.batch.append" if shape.keyed else "_b_append"
    lines = [*restore, "_b_ended = _b_clock()"]
    if shape.judged:
        lines += [
            "if _b_judge(_b_result):",
            f"    {core}.done(_b_permit, _b_started, _b_ended, failed=True)",
        ]
        if shape.retry:
            repeat = f"{wait}_b_repeat({core}, None, _b_result, _b_started, {signature.packed})"
            lines += _indented(_finish(shape, signature, repeat))
        else:
            lines.append("    return _b_result")
    # A probe never passes here: it started before the breaker closed, or the breaker has not closed yet.
    lines += [
        "if (",
        f"    _b_ended < {core}.quiet_until",
        f"    and _b_started >= {core}.since and (_b_took := _b_ended - _b_started) <= {core}.slow_s",
        "):",
        f"    {append}(_b_took)",
        "else:",
        f"    {core}.done(_b_permit, _b_started, _b_ended)",
    ]
    return lines + _finish(shape, signature, "_b_result")


def _finish(shape: Shape, signature: Signature, result: str) -> list[str]:
    """The lines that answer the caller; a ladder remembers the answer first."""
    if not shape.ladder:
        return [f"return {result}"]
    return [f"_b_result = {result}", f"_b_served(_b_result, {signature.packed})", "return _b_result"]


def _indented(lines: list[str]) -> list[str]:
    return ["    " + line for line in lines]


def compile_call(shape: Shape, signature: Signature, name: str, bound: dict[str, Any]) -> Any:
    """The compiled call. `bound` gives a value for some of the names in `FREE`; the others are None."""
    source = source_of(shape, signature, name)
    where = f"<budao guard around {name}>"
    namespace: dict[str, Any] = {}
    exec(compile(source, where, "exec"), namespace)  # noqa: S102 - the text is ours, and users' names in it are identifiers
    # Tracebacks and debuggers can then show the lines.
    linecache.cache[where] = (len(source), None, source.splitlines(keepends=True), where)
    made = namespace["_b_make"](*(bound.get(each) for each in FREE))
    made.__defaults__ = signature.defaults
    made.__kwdefaults__ = signature.keyword_defaults
    return made
