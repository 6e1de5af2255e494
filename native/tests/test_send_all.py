"""The native loop and its twin in Python say the same for the same sockets."""

from __future__ import annotations

import socket

import budao_native
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budao.aio.gateway import sending

LOOPS = {"native": budao_native.send_all, "twin": sending.send_all}


def pairs(fills: list[int], *, gone: list[bool]) -> list[tuple[socket.socket, socket.socket]]:
    """Connections whose reader has so much unread already, or has gone."""
    made = []
    for fill, is_gone in zip(fills, gone, strict=True):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        left = fill
        while left > 0:
            try:
                left -= ours.send(b"." * min(left, 1024))
            except BlockingIOError:
                break
        if is_gone:
            theirs.close()
        made.append((ours, theirs))
    return made


def told(name: str, fills: list[int], gone: list[bool], data: bytes) -> tuple[list[tuple[int, int]], list[bytes]]:
    made = pairs(fills, gone=gone)
    try:
        short = LOOPS[name]([ours.fileno() for ours, _ in made], data)
        read = []
        for (ours, theirs), is_gone in zip(made, gone, strict=True):
            ours.close()
            got = b""
            while not is_gone and (part := theirs.recv(65536)):
                got += part
            read.append(got)
        return short, read
    finally:
        for ours, theirs in made:
            ours.close()
            theirs.close()


@settings(deadline=None, max_examples=200)
@given(
    readers=st.lists(st.tuples(st.sampled_from([0, 1, 500, 100_000]), st.booleans()), max_size=12),
    size=st.sampled_from([0, 1, 128, 5_000, 300_000]),
)
def test_both_take_and_tell_the_same(readers: list[tuple[int, bool]], size: int) -> None:
    fills, gone = [fill for fill, _ in readers], [is_gone for _, is_gone in readers]
    data = bytes(range(256)) * (size // 256 + 1)
    assert told("native", fills, gone, data[:size]) == told("twin", fills, gone, data[:size])


@pytest.mark.parametrize("name", LOOPS)
def test_a_descriptor_that_is_closed_takes_nothing_and_hurts_nobody(name: str) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    closed = socket.socket()
    descriptor = closed.fileno()
    closed.close()
    assert LOOPS[name]([descriptor, ours.fileno()], b"hello") == [(0, 0)]
    assert theirs.recv(10) == b"hello"
    ours.close()
    theirs.close()


def test_the_gateway_finds_it() -> None:
    assert sending.find_send_all() is budao_native.send_all
