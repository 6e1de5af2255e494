"""The words a refused request is answered with, for programs; each with the HTTP status that says the same."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

WHYS: Final[Mapping[str, tuple[int, str]]] = MappingProxyType(
    {
        "bad-channel": (400, "the name is none that a channel can have"),
        "bad-data": (400, "the data is missing, or not what every reader would read alike"),
        "forbidden": (403, "the token does not allow it"),
        "too-large": (413, "the data is longer than the channel takes"),
        "subscribed": (409, "the session reads this channel already; unsubscribe first to begin elsewhere"),
        "too-many": (429, "the session reads as many channels as it may"),
        "rate": (429, "too fast; `after_s` says when another try has a chance"),
        "busy": (503, "too much is waiting for the log already"),
        "standby": (409, "a standby only reads; promote it first"),
        "not-standby": (409, "it is not quiet, so there is nothing to promote"),
        "no-presence": (400, "this channel does not tell who is there"),
        "log-away": (503, "the log does not answer; publish again with the same id"),
        "no-room": (503, "a bound of the log is reached"),
        "no-space": (507, "the disk of the log is full"),
    }
)
"""A client that meets another word treats it as it treats `forbidden`: not again unchanged."""
