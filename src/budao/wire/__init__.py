"""Bytes and text from strangers into typed values, and values into what goes out.

A parser here never raises for what a header says: it answers None or "", and the caller goes on without. Nothing here
sends, waits, or decides what a value means.
"""

from budao.wire import etcd, federation, journal, protobuf, store_frames
from budao.wire.certificate import Validity, parse_validity
from budao.wire.consul import BODY_BYTES_MAX, INDEX_HEADER, next_index, parse_health, parse_index
from budao.wire.headers import (
    PRIORITY,
    TIMEOUT,
    TRACEPARENT,
    format_priority,
    format_retry_after,
    format_timeout,
    parse_priority,
    parse_timeout,
    parse_traceparent,
)
from budao.wire.instances import (
    Watcher,
    format_instance,
    format_watcher,
    instance_key,
    instances_span,
    parse_instance,
    parse_key,
    parse_watcher,
    watcher_key,
    watchers_span,
)
from budao.wire.kubernetes import (
    GONE,
    LINE_BYTES_MAX,
    SERVICE_LABEL,
    Bookmark,
    Slice,
    SliceDeleted,
    SliceEvent,
    SliceList,
    SlicePut,
    WatchEnded,
    joined,
    parse_slice_event,
    parse_slice_list,
)
from budao.wire.load import LOAD, format_load, load_text, parse_load

__all__ = [
    "BODY_BYTES_MAX",
    "GONE",
    "INDEX_HEADER",
    "LINE_BYTES_MAX",
    "LOAD",
    "PRIORITY",
    "SERVICE_LABEL",
    "TIMEOUT",
    "TRACEPARENT",
    "Bookmark",
    "Slice",
    "SliceDeleted",
    "SliceEvent",
    "SliceList",
    "SlicePut",
    "Validity",
    "WatchEnded",
    "Watcher",
    "etcd",
    "federation",
    "format_instance",
    "format_load",
    "format_priority",
    "format_retry_after",
    "format_timeout",
    "format_watcher",
    "instance_key",
    "instances_span",
    "joined",
    "journal",
    "load_text",
    "next_index",
    "parse_health",
    "parse_index",
    "parse_instance",
    "parse_key",
    "parse_load",
    "parse_priority",
    "parse_slice_event",
    "parse_slice_list",
    "parse_timeout",
    "parse_traceparent",
    "parse_validity",
    "parse_watcher",
    "protobuf",
    "store_frames",
    "watcher_key",
    "watchers_span",
]
