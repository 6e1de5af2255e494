"""The gateway: one port for HTTP, server-sent events and WebSocket, one for plain TCP, and a hub that tells everybody everything.

Start reading in `gateway.py`; the hot path is `hub.py`. Another protocol, a health sampler or a mover plugs in as `connection.py`,
`http_api.py` (`Exchange`) and `gateway.py` (`Watcher`) say.
"""

from budao.aio.gateway.access import Access
from budao.aio.gateway.certificates import Certificates
from budao.aio.gateway.connection import Connection
from budao.aio.gateway.gateway import Gateway, Visitor, Watcher
from budao.aio.gateway.metrics import GatewayMetrics
from budao.aio.gateway.policy import GatewayPolicy

__all__ = ["Access", "Certificates", "Connection", "Gateway", "GatewayMetrics", "GatewayPolicy", "Visitor", "Watcher"]
