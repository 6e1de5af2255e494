"""What waits on an event loop: calls with their timers, retries, hedges and streams; stores, directories, pools and drains.

Whatever waits is here or in `threads`; nothing here decides. What only services need is loaded when it is first asked for: a
program that protects calls does not pay for it, and runs also where the embedded server cannot.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from budao.aio.background import Background
from budao.aio.calls import Suspended, crowd, descend, repeat, reset_anywhere
from budao.aio.campaign import Leadership, campaign
from budao.aio.duel import as_coroutine
from budao.aio.flight import single
from budao.aio.follow import Followed, Lost, follow, list_span, watching
from budao.aio.lag import LagProbe
from budao.aio.latest import Latest
from budao.aio.streams import stream

if TYPE_CHECKING:
    from budao.aio.background_loop import BackgroundLoop, in_thread
    from budao.aio.channel_log import ChannelLog, Feed
    from budao.aio.directory import Directory
    from budao.aio.drain import Announcer, Drainer, NoPort, Port, Traffic
    from budao.aio.federation import Federation
    from budao.aio.federation_source import FederatedSource
    from budao.aio.gateway import (
        Access,
        Certificates,
        ControlSocket,
        FollowedFile,
        Gateway,
        GatewayMetrics,
        GatewayPolicy,
        LookingAfter,
        Mover,
        TakeOverFailed,
        WatchPolicy,
        read_ticket_keys,
        take_over,
    )
    from budao.aio.link import Link
    from budao.aio.logs import DurableLog, LogPolicy, LogServer, LogServerPolicy, MemoryLog, RemoteFeed, RemoteLog
    from budao.aio.memory_store import MemoryStore
    from budao.aio.pool import HasRoster, Pool
    from budao.aio.presence import Presence
    from budao.aio.push_client import (
        ChannelRefused,
        ClientMetrics,
        Closed,
        Forbidden,
        GivenUp,
        PublishTimedOut,
        PushClient,
        PushError,
        Subscription,
        Unauthorized,
    )
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

_HOMES = {
    "background_loop": ("BackgroundLoop", "in_thread"),
    "channel_log": ("ChannelLog", "Feed"),
    "directory": ("Directory",),
    "drain": ("Announcer", "Drainer", "NoPort", "Port", "Traffic"),
    "federation": ("Federation",),
    "federation_source": ("FederatedSource",),
    "gateway": (
        "Access",
        "Certificates",
        "ControlSocket",
        "FollowedFile",
        "Gateway",
        "GatewayMetrics",
        "GatewayPolicy",
        "LookingAfter",
        "Mover",
        "TakeOverFailed",
        "WatchPolicy",
        "read_ticket_keys",
        "take_over",
    ),
    "link": ("Link",),
    "logs": (
        "DurableLog",
        "LogPolicy",
        "LogServer",
        "LogServerPolicy",
        "MemoryLog",
        "RemoteFeed",
        "RemoteLog",
    ),
    "memory_store": ("MemoryStore",),
    "pool": ("HasRoster", "Pool"),
    "presence": ("Presence",),
    "push_client": (
        "ChannelRefused",
        "ClientMetrics",
        "Closed",
        "Forbidden",
        "GivenUp",
        "PublishTimedOut",
        "PushClient",
        "PushError",
        "Subscription",
        "Unauthorized",
    ),
    "registrar": ("Registrar",),
    "security": (
        "check_exposure",
        "check_sending",
        "check_token",
        "client_tls",
        "explain_tls",
        "is_loopback",
        "is_token",
        "read_token",
        "server_tls",
    ),
    "source": ("Source",),
    "store": ("Store",),
    "store_client": ("RemoteStore",),
    "store_durable": ("DurableStore", "JournalPolicy"),
    "store_server": ("ServerPolicy", "StoreServer"),
    "store_source": ("StoreSource",),
    "stored_settings": ("Overtaken", "StoredSettings"),
}
"""By module: the names that are loaded when they are asked for.

A name that is also its module's own cannot be among them: the import system would put the module in its place. A test holds
this table to what the front door offers.
"""

_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Access",
    "Announcer",
    "Background",
    "BackgroundLoop",
    "Certificates",
    "ChannelLog",
    "ChannelRefused",
    "ClientMetrics",
    "Closed",
    "ControlSocket",
    "Directory",
    "Drainer",
    "DurableLog",
    "DurableStore",
    "FederatedSource",
    "Federation",
    "Feed",
    "Followed",
    "FollowedFile",
    "Forbidden",
    "Gateway",
    "GatewayMetrics",
    "GatewayPolicy",
    "GivenUp",
    "HasRoster",
    "JournalPolicy",
    "LagProbe",
    "Latest",
    "Leadership",
    "Link",
    "LogPolicy",
    "LogServer",
    "LogServerPolicy",
    "LookingAfter",
    "Lost",
    "MemoryLog",
    "MemoryStore",
    "Mover",
    "NoPort",
    "Overtaken",
    "Pool",
    "Port",
    "Presence",
    "PublishTimedOut",
    "PushClient",
    "PushError",
    "Registrar",
    "RemoteFeed",
    "RemoteLog",
    "RemoteStore",
    "ServerPolicy",
    "Source",
    "Store",
    "StoreServer",
    "StoreSource",
    "StoredSettings",
    "Subscription",
    "Suspended",
    "TakeOverFailed",
    "Traffic",
    "Unauthorized",
    "WatchPolicy",
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
    "read_ticket_keys",
    "read_token",
    "repeat",
    "reset_anywhere",
    "server_tls",
    "single",
    "stream",
    "take_over",
    "watching",
]


def __getattr__(name: str) -> Any:
    """Loads a name that is asked for the first time."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'budao.aio' has no attribute {name!r}")
    value = getattr(import_module(f"budao.aio.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """All names, loaded or not."""
    return sorted({*globals(), *__all__})
