"""Logs of channels: in memory, durable in a folder, served to other processes, and as seen from there."""

from budao.aio.logs.durable import DurableLog, LogPolicy
from budao.aio.logs.local import Epochs, LocalFeed, LocalLog
from budao.aio.logs.memory import MemoryLog

__all__ = ["DurableLog", "Epochs", "LocalFeed", "LocalLog", "LogPolicy", "MemoryLog"]
