"""Logs of channels: in memory, durable in a folder, served to other processes, and as seen from there."""

from budao.aio.logs.client import RemoteLog
from budao.aio.logs.durable import DurableLog, LogPolicy
from budao.aio.logs.local import Epochs, LocalFeed, LocalLog
from budao.aio.logs.memory import MemoryLog
from budao.aio.logs.remote_feed import RemoteFeed
from budao.aio.logs.server import LogServer, LogServerPolicy

__all__ = [
    "DurableLog",
    "Epochs",
    "LocalFeed",
    "LocalLog",
    "LogPolicy",
    "LogServer",
    "LogServerPolicy",
    "MemoryLog",
    "RemoteFeed",
    "RemoteLog",
]
