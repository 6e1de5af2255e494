"""A client of the push gateways for asyncio: `PushClient` reads channels and publishes, and keeps both going.

What decides (which gateway, when a connection is dead, what a reader gets) is in `budao.push`; here is what waits.
"""

from budao.aio.push_client.client import PushClient
from budao.aio.push_client.errors import (
    ChannelRefused,
    Closed,
    Forbidden,
    GivenUp,
    PublishTimedOut,
    PushError,
    Unauthorized,
)
from budao.aio.push_client.metrics import ClientMetrics
from budao.aio.push_client.subscription import Subscription

__all__ = [
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
]
