"""What a gateway and its connections offer to be moved to another process: the seam of `handover`."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Movable(Protocol):
    """A live connection that may be given to another process."""

    def freeze(self) -> bool:
        """Reads nothing and writes nothing new from now on; False where it cannot be moved at all: TLS, HTTP/2.

        Messages of its channels go past it: it holds its places.
        """

    def is_settled(self) -> bool:
        """Whether nothing of it is under way: its write buffer is empty, and every request it made is answered."""

    def thaw(self) -> None:
        """Goes on as if nothing had happened: reads what is unread, catches up from its places."""

    def export(self) -> tuple[int, Mapping[str, Any]]:
        """The descriptor of its socket, and everything `House.adopt` needs. Only of one that is frozen and settled.

        Plain values (None, numbers, text, bytes, lists, maps): transport, subprotocol, session with its places, grant,
        unread bytes, the parts of a message that has begun, what was agreed on deflate.
        """

    def forget(self) -> None:
        """It is another's now: closes our end of the socket without a word, and without counting it as an end."""


@dataclass(frozen=True, slots=True)
class Listening:
    """One listening socket: `http` or `tcp`, and whether what it accepts is encrypted."""

    kind: str
    socket: socket.socket
    is_tls: bool = False


class House(Protocol):
    """The gateway, as the one who is moved out of or into."""

    def listening(self) -> Sequence[Listening]:
        """Its listeners; the sockets stay its own."""

    def about(self) -> Mapping[str, Any]:
        """What a successor goes on with, as plain values: name, spent tickets, and when it began."""

    def pause_accepting(self) -> None:
        """Newcomers wait in the kernel."""

    async def resume_accepting(self) -> None: ...

    def connections(self) -> Sequence[Movable]:
        """All that are open."""

    async def adopt(self, connection: socket.socket, state: Mapping[str, Any]) -> None:
        """Goes on with a connection that another process exported. The socket is its own from now on.

        Raises:  RemoteWireError or OSError if it cannot.
        """

    def send_away(self, within_s: float) -> None:
        """Tells everybody who is left to come back now (1001), and is empty after so many seconds."""

    def take_over_problem(self) -> str:
        """Why its connections cannot go to another process at all, such as a log that lives in this one; "" if they can."""
