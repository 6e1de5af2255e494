"""Bounded arithmetic over time: what has been counted, how fast, how slow, and how much is left.

Every measure is told the time and never asks for it; one measure keeps to one clock. An instant earlier than the last
one written is treated as the last one. Reading never changes what is read. Nothing here locks, so threads that share
a measure bring their own lock, and nothing here decides what a number means.
"""

from budao.measure.bucket import TokenBucket
from budao.measure.budget import Budget
from budao.measure.fading import Fading
from budao.measure.histogram import BUCKETS_MAX, VALUE_MAX, Histogram, HistogramSnapshot
from budao.measure.instant import Instant
from budao.measure.rank import nearest_rank
from budao.measure.samples import Samples
from budao.measure.window import Window

__all__ = [
    "BUCKETS_MAX",
    "VALUE_MAX",
    "Budget",
    "Fading",
    "Histogram",
    "HistogramSnapshot",
    "Instant",
    "Samples",
    "TokenBucket",
    "Window",
    "nearest_rank",
]
