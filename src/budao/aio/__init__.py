"""The same machines on an event loop: timers, waiting, retries, hedges, streams, background tasks.

Whatever waits is here or in `threads`; nothing here decides.
"""

from budao.aio.background import Background
from budao.aio.background_loop import BackgroundLoop, in_thread
from budao.aio.calls import Suspended, crowd, descend, repeat, reset_anywhere
from budao.aio.campaign import Leadership, campaign
from budao.aio.directory import Directory
from budao.aio.drain import Announcer, Drainer, NoPort, Port, Traffic
from budao.aio.duel import as_coroutine
from budao.aio.federation import Federation
from budao.aio.federation_source import FederatedSource
from budao.aio.flight import single
from budao.aio.follow import Followed, Lost, follow, list_span, watching
from budao.aio.lag import LagProbe
from budao.aio.latest import Latest
from budao.aio.memory_store import MemoryStore
from budao.aio.pool import HasRoster, Pool
from budao.aio.registrar import Registrar
from budao.aio.security import (
    check_exposure,
    check_sending,
    check_token,
    client_tls,
    explain_tls,
    is_loopback,
    is_token,
    read_token,
    server_tls,
)
from budao.aio.source import Source
from budao.aio.store import Store
from budao.aio.store_client import RemoteStore
from budao.aio.store_durable import DurableStore, JournalPolicy
from budao.aio.store_server import ServerPolicy, StoreServer
from budao.aio.store_source import StoreSource
from budao.aio.stored_settings import Overtaken, StoredSettings
from budao.aio.streams import stream

__all__ = [
    "Announcer",
    "Background",
    "BackgroundLoop",
    "Directory",
    "Drainer",
    "DurableStore",
    "FederatedSource",
    "Federation",
    "Followed",
    "HasRoster",
    "JournalPolicy",
    "LagProbe",
    "Latest",
    "Leadership",
    "Lost",
    "MemoryStore",
    "NoPort",
    "Overtaken",
    "Pool",
    "Port",
    "Registrar",
    "RemoteStore",
    "ServerPolicy",
    "Source",
    "Store",
    "StoreServer",
    "StoreSource",
    "StoredSettings",
    "Suspended",
    "Traffic",
    "as_coroutine",
    "campaign",
    "check_exposure",
    "check_sending",
    "check_token",
    "client_tls",
    "crowd",
    "descend",
    "explain_tls",
    "follow",
    "in_thread",
    "is_loopback",
    "is_token",
    "list_span",
    "read_token",
    "repeat",
    "reset_anywhere",
    "server_tls",
    "single",
    "stream",
    "watching",
]
