"""Budao keeps Python services inside their service level objectives."""
