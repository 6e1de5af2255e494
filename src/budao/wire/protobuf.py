"""Protocol buffers, the part of the wire format that a small client needs, driven by tables.

A message is a frozen dataclass whose fields say their number and kind. Fields that are not known are skipped, as the
format asks; groups, packed numbers and maps are not written, and a group is refused. Where a field that holds one
message comes twice the later one counts, and nothing is merged.

Source: protobuf.dev, "Encoding"; and "Field presence" for what is left out when it is 0 or empty.
"""

from __future__ import annotations

from dataclasses import field, fields
from enum import Enum
from typing import Any, Final, TypeVar, cast

from budao.model import LocalWireError, RemoteWireError

MessageT = TypeVar("MessageT")

VARINT: Final = 0
FIXED64: Final = 1
LENGTH: Final = 2
FIXED32: Final = 5

FIXED_BYTES: Final = {FIXED64: 8, FIXED32: 4}
NUMBER_BITS: Final = 64
NUMBERS: Final = 1 << NUMBER_BITS
SIGNED_MAX: Final = (1 << (NUMBER_BITS - 1)) - 1
FIELD_NUMBER_MAX: Final = (1 << 29) - 1

_SMALL: Final = tuple(bytes([value]) for value in range(0x80))


class Kind(Enum):
    """How a field is written."""

    NUMBER = "int64"
    FLAG = "bool"
    BYTES = "bytes"
    TEXT = "string"
    MESSAGE = "message"


class Slot:
    """Where a field of a message goes: its number, its kind, and what 0 or absent means."""

    __slots__ = (
        "always",
        "default",
        "index",
        "inner",
        "is_varint",
        "kind",
        "many",
        "name",
        "number",
        "tag",
        "tag_number",
    )

    def __init__(
        self, number: int, kind: Kind, *, inner: type[Any] | None = None, many: bool = False, always: bool = False
    ) -> None:
        self.number = number
        self.kind = kind
        self.inner = inner
        self.many = many
        self.always = always
        """Whether it is written even when it is 0 or empty, unless it is None: a member of a `oneof`."""
        self.is_varint = kind is Kind.NUMBER or kind is Kind.FLAG
        self.tag_number = number << 3 | (VARINT if self.is_varint else LENGTH)
        self.tag = _varint(self.tag_number)
        self.name = ""
        self.index = -1
        self.default: Any = None


def number(at: int) -> int:
    """A field: a signed number of 64 bits."""
    found: int = field(default=0, metadata={"slot": Slot(at, Kind.NUMBER)})
    return found


def flag(at: int) -> bool:
    """A field: yes or no."""
    found: bool = field(default=False, metadata={"slot": Slot(at, Kind.FLAG)})
    return found


def raw(at: int) -> bytes:
    """A field: bytes."""
    found: bytes = field(default=b"", metadata={"slot": Slot(at, Kind.BYTES)})
    return found


def text(at: int) -> str:
    """A field: text."""
    found: str = field(default="", metadata={"slot": Slot(at, Kind.TEXT)})
    return found


def maybe_number(at: int) -> int | None:
    """A field of a `oneof`: a number that is written even if it is 0."""
    return cast("int | None", field(default=None, metadata={"slot": Slot(at, Kind.NUMBER, always=True)}))


def maybe_raw(at: int) -> bytes | None:
    """A field of a `oneof`: bytes that are written even if there are none."""
    return cast("bytes | None", field(default=None, metadata={"slot": Slot(at, Kind.BYTES, always=True)}))


def one(at: int, inner: type[MessageT]) -> MessageT | None:
    """A field: a message, or none."""
    slot = Slot(at, Kind.MESSAGE, inner=inner, always=True)
    return cast("MessageT | None", field(default=None, metadata={"slot": slot}))


def many(at: int, inner: type[MessageT]) -> tuple[MessageT, ...]:
    """A field: any number of messages."""
    slot = Slot(at, Kind.MESSAGE, inner=inner, many=True)
    return cast("tuple[MessageT, ...]", field(default=(), metadata={"slot": slot}))


def many_raw(at: int) -> tuple[bytes, ...]:
    """A field: any number of bytes."""
    return cast("tuple[bytes, ...]", field(default=(), metadata={"slot": Slot(at, Kind.BYTES, many=True)}))


def many_text(at: int) -> tuple[str, ...]:
    """A field: any number of texts."""
    return cast("tuple[str, ...]", field(default=(), metadata={"slot": Slot(at, Kind.TEXT, many=True)}))


class Plan:
    """A message's table, made once: what to write in which order, and where what is read goes."""

    def __init__(self, message: type[Any]) -> None:
        self.message = message
        self.slots: list[Slot] = []
        for index, each in enumerate(fields(message)):
            slot = cast("Slot", each.metadata["slot"])
            slot.name, slot.index, slot.default = each.name, index, each.default
            self.slots.append(slot)
        self.by_tag = {slot.tag_number: slot for slot in self.slots}
        assert len({slot.number for slot in self.slots}) == len(self.slots), (
            f"a number is used twice in {message.__name__}"
        )
        self.written = sorted(self.slots, key=lambda slot: slot.number)
        self.defaults = [slot.default for slot in self.slots]


_plans: dict[type[Any], Plan] = {}  # bounded by the message classes of the program


def _plan(message: type[Any]) -> Plan:
    found = _plans.get(message)
    if found is None:
        found = _plans[message] = Plan(message)
    return found


def encode(message: object) -> bytes:
    """The bytes of a message.

    Raises:  LocalWireError for a number that 64 bits do not hold, or text that UTF-8 cannot write.
    """
    out: list[bytes] = []
    for slot in _plan(type(message)).written:
        value = getattr(message, slot.name)
        if slot.many:
            for each in value:
                out.append(slot.tag)
                out.append(_written(slot, each))
        elif value is not None if slot.always else value:
            out.append(slot.tag)
            out.append(_written(slot, value))
    return b"".join(out)


def decode(message: type[MessageT], data: bytes) -> MessageT:
    """The message in `data`, all of which it must be.

    Raises:  RemoteWireError if a rule of the format is broken. Whoever calls has bounded how long `data` is.
    """
    return cast("MessageT", _decode(_plan(message), data, 0, len(data)))


def _decode(plan: Plan, data: bytes, at: int, end: int) -> Any:
    values = plan.defaults.copy()
    lists: dict[int, list[Any]] = {}
    slots = plan.by_tag
    while at < end:
        tag = data[at]
        if tag < 0x80:  # here and below: a number of one byte, which most are, costs no call
            at += 1
        else:
            tag, at = _read_varint(data, at, end)
        slot = slots.get(tag)
        if slot is None:
            at = _skipped(plan, tag, data, at, end)
            continue
        if at < end and data[at] < 0x80:
            content = data[at]
            at += 1
        else:
            content, at = _read_varint(data, at, end)
        value: Any
        if slot.kind is Kind.NUMBER:
            value = content if content <= SIGNED_MAX else content - NUMBERS
        elif slot.kind is Kind.FLAG:
            value = content != 0
        else:
            start, at = at, at + content
            if at > end:
                raise RemoteWireError(f"{plan.message.__name__}.{slot.name} ends {at - end} bytes after its message")
            value = _content(plan, slot, data, start, at)
        if slot.many:
            lists.setdefault(slot.index, []).append(value)
        else:
            values[slot.index] = value
    for index, found in lists.items():
        values[index] = tuple(found)
    return plan.message(*values)


def _content(plan: Plan, slot: Slot, data: bytes, start: int, end: int) -> object:
    """What a known field holds that has a length."""
    if slot.inner is not None:
        return _decode(_plan(slot.inner), data, start, end)
    if slot.kind is Kind.BYTES:
        return data[start:end]
    try:
        return data[start:end].decode()
    except UnicodeDecodeError as error:
        raise RemoteWireError(f"{plan.message.__name__}.{slot.name} is no UTF-8: {error.reason}") from error


def _skipped(plan: Plan, tag: int, data: bytes, at: int, end: int) -> int:
    """Where the next field begins, after one that is not known."""
    number, kind = tag >> 3, tag & 7
    if not 0 < number <= FIELD_NUMBER_MAX:
        raise RemoteWireError(f"{plan.message.__name__}: {number} is no number of a field")
    for slot in plan.slots:
        if slot.number == number:
            name = f"{plan.message.__name__}.{slot.name}"
            raise RemoteWireError(f"{name} has wire type {kind}, which is not how {slot.kind.value} is written")
    if kind == VARINT:
        _, at = _read_varint(data, at, end)
    elif kind == LENGTH:
        length, at = _read_varint(data, at, end)
        at += length
    elif kind in FIXED_BYTES:
        at += FIXED_BYTES[kind]
    else:
        raise RemoteWireError(f"{plan.message.__name__}: wire type {kind} is not read here")
    if at > end:
        raise RemoteWireError(f"{plan.message.__name__}: field {number} ends {at - end} bytes after its message")
    return at


def _written(slot: Slot, value: Any) -> bytes:
    if slot.is_varint:
        return _varint(int(value))
    if slot.inner is not None:
        content = encode(value)
    elif slot.kind is Kind.BYTES:
        content = bytes(value)
    else:
        try:
            content = value.encode()
        except UnicodeEncodeError as error:
            raise LocalWireError(f"{slot.name} holds half a surrogate pair, which UTF-8 cannot write") from error
    return _varint(len(content)) + content


def _varint(value: int) -> bytes:
    if 0 <= value < 0x80:
        return _SMALL[value]
    if not -SIGNED_MAX - 1 <= value <= SIGNED_MAX:
        raise LocalWireError(f"{value} does not fit in 64 bits")
    value &= NUMBERS - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= NUMBERS:
                break
            return value, at
        shift += 7
        if shift >= NUMBER_BITS + 6:
            break
    else:
        raise RemoteWireError("the bytes end within a number")
    raise RemoteWireError("a number has more than 64 bits")
