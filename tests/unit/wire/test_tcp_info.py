"""The kernel's struct, from each length that a kernel may answer with."""

from __future__ import annotations

from struct import pack_into

from hypothesis import given
from hypothesis import strategies as st

from budao.wire import TCP_INFO_BYTES, parse_tcp_info


def struct_of(**fields: tuple[int, str, int]) -> bytes:
    raw = bytearray(232)
    for at, form, value in fields.values():
        pack_into(f"={form}", raw, at, value)
    return bytes(raw)


RAW = struct_of(
    state=(0, "B", 1),
    ca_state=(1, "B", 4),
    retransmits=(2, "B", 3),
    rto=(8, "I", 204_000),
    unacked=(24, "I", 7),
    retrans=(36, "I", 2),
    last_recv=(52, "I", 33),
    rtt=(68, "I", 1_500),
    rttvar=(72, "I", 700),
    cwnd=(80, "I", 10),
    total=(100, "I", 9),
    acked=(120, "Q", 10_000),
    received=(128, "Q", 2**40),
    notsent=(144, "I", 500),
    sent=(200, "Q", 13_000),
    again=(208, "Q", 1_000),
)


def test_each_field_is_where_the_header_says() -> None:
    info = parse_tcp_info(RAW)
    assert info is not None
    assert (info.state, info.ca_state, info.retransmits, info.rto_us, info.unacked) == (1, 4, 3, 204_000, 7)
    assert (info.last_data_recv_ms, info.rtt_us, info.rttvar_us, info.cwnd, info.total_retrans) == (
        33,
        1_500,
        700,
        10,
        9,
    )
    assert (info.bytes_acked, info.bytes_received, info.notsent_bytes) == (10_000, 2**40, 500)
    assert (info.bytes_sent, info.bytes_retrans) == (13_000, 1_000)
    assert info.queued_bytes == 13_000 - 1_000 - 10_000 + 500
    assert info.is_retrying


def test_an_older_kernel_leaves_unknown_what_it_does_not_know() -> None:
    whole = parse_tcp_info(RAW)
    for size in range(104, 232):
        info = parse_tcp_info(RAW[:size])
        assert info is not None
        assert whole is not None
        assert (info.rtt_us, info.total_retrans) == (1_500, 9)
        assert info.bytes_acked == (10_000 if size >= 128 else None)
        assert info.notsent_bytes == (500 if size >= 148 else None)
        assert info.bytes_sent == (13_000 if size >= 208 else None)
        assert (info.queued_bytes is None) == (size < TCP_INFO_BYTES)


def test_what_is_too_short_is_not_understood() -> None:
    assert parse_tcp_info(b"") is None
    assert parse_tcp_info(RAW[:103]) is None


@given(st.binary(max_size=300))
def test_no_bytes_raise(raw: bytes) -> None:
    info = parse_tcp_info(raw)
    assert (info is None) == (len(raw) < 104)
