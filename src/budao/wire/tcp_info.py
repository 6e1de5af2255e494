"""What Linux says of a TCP connection (`struct tcp_info`), from bytes to values.

Kernels append to the struct and never move what is there, so each answers with as much as it knows. Other systems have no such
struct, or one of another shape: there, nothing is known.

Source: include/uapi/linux/tcp.h. The fields up to `total_retrans` are in every Linux since 2.6; `bytes_acked` since 4.1,
`notsent_bytes` since 4.6, `bytes_sent` and `bytes_retrans` since 4.19.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

TCP_INFO_BYTES: Final = 216
"""As much as is asked for, and read. A kernel that knows more cuts its answer."""
TCP_INFO_BYTES_MIN: Final = 104
"""A shorter answer is not understood."""

_FIELDS: Final = Struct("=5B3x I 12x I 4x II 4x I 4x II 8x II 4x I 16x I 16x QQ II II 48x QQ")
_ENDS: Final = (*(TCP_INFO_BYTES_MIN,) * 16, 128, 136, 140, 144, 148, 152, 208, 216)
"""Where each field ends, so that one which an older kernel does not know is None."""


class TcpInfo(NamedTuple):
    """One look at a connection. What the kernel is too old to say is None.

    Units:   as their names say; `rto`, `rtt` and `rttvar` in microseconds, `last_…` in milliseconds since it happened, segments
             where no unit is named.
    """

    state: int
    """1 is established."""
    ca_state: int
    """0 open, 1 disorder, 2 window reduced, 3 recovery, 4 loss."""
    retransmits: int
    """How often the oldest segment was sent again by timeout, without an answer so far."""
    probes: int
    """Probes of a closed window that are out."""
    backoff: int
    rto_us: int
    unacked: int
    lost: int
    retrans: int
    """Segments sent again that are not acknowledged yet."""
    last_data_sent_ms: int
    last_data_recv_ms: int
    last_ack_recv_ms: int
    rtt_us: int
    """Smoothed."""
    rttvar_us: int
    """Its mean deviation."""
    cwnd: int
    total_retrans: int
    bytes_acked: int | None
    bytes_received: int | None
    segs_out: int | None
    segs_in: int | None
    notsent_bytes: int | None
    min_rtt_us: int | None
    bytes_sent: int | None
    """Those sent again are counted again."""
    bytes_retrans: int | None

    @property
    def is_retrying(self) -> bool:
        """Whether the kernel is sending again what was not acknowledged."""
        return self.retransmits > 0 or self.retrans > 0 or self.ca_state >= 3

    @property
    def queued_bytes(self) -> int | None:
        """What the kernel holds: sent and not acknowledged, or not sent yet. The same as SIOCOUTQ says, without asking again."""
        if (
            self.bytes_sent is None
            or self.bytes_retrans is None
            or self.bytes_acked is None
            or self.notsent_bytes is None
        ):
            return None
        return max(0, self.bytes_sent - self.bytes_retrans - self.bytes_acked) + self.notsent_bytes


def parse_tcp_info(raw: bytes) -> TcpInfo | None:
    """The values of an answer to `getsockopt(IPPROTO_TCP, TCP_INFO)`; None if it is too short to be one.

    Cost: about 0.7 us.
    """
    size = len(raw)
    if size >= TCP_INFO_BYTES:
        return TcpInfo._make(_FIELDS.unpack_from(raw))
    if size < TCP_INFO_BYTES_MIN:
        return None
    values = _FIELDS.unpack_from(raw + bytes(TCP_INFO_BYTES - size))
    return TcpInfo._make(value if end <= size else None for value, end in zip(values, _ENDS, strict=True))
