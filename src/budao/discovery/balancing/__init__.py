"""Whom to pick: the default by live cost, and others by name."""

from budao.discovery.balancing.balancer import Balancer, Choice

__all__ = ["Balancer", "Choice"]
