"""The gateway: one port for HTTP, server-sent events and WebSocket, one for plain TCP, and a hub that tells everybody everything.

Start reading in `gateway.py`; the hot path is `hub.py`. Another protocol, a health sampler or a mover plugs in as `connection.py`,
`http_api.py` (`Exchange`) and `gateway.py` (`Watcher`) say.
"""

from budao.aio.gateway.access import Access
from budao.aio.gateway.certificates import Certificates
from budao.aio.gateway.connection import Connection
from budao.aio.gateway.control import ControlSocket
from budao.aio.gateway.followed_file import FollowedFile
from budao.aio.gateway.gateway import Gateway, Visitor, Watcher
from budao.aio.gateway.handover import Taken, TakeOverFailed, Taking, take_over
from budao.aio.gateway.looking_after import LookingAfter
from budao.aio.gateway.metrics import GatewayMetrics
from budao.aio.gateway.mover import Mover
from budao.aio.gateway.policy import GatewayPolicy
from budao.aio.gateway.sampler import WatchPolicy
from budao.aio.gateway.tickets import read_ticket_keys

__all__ = [
    "Access",
    "Certificates",
    "Connection",
    "ControlSocket",
    "FollowedFile",
    "Gateway",
    "GatewayMetrics",
    "GatewayPolicy",
    "LookingAfter",
    "Mover",
    "TakeOverFailed",
    "Taken",
    "Taking",
    "Visitor",
    "WatchPolicy",
    "Watcher",
    "read_ticket_keys",
    "take_over",
]
