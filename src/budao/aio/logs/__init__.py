"""Logs of channels: in memory, durable in a folder, served to other processes, and as seen from there."""

from budao.aio.logs.local import Epochs, LocalFeed, LocalLog
from budao.aio.logs.memory import MemoryLog

__all__ = ["Epochs", "LocalFeed", "LocalLog", "MemoryLog"]
