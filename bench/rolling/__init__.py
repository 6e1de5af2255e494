"""Rolling restarts under load."""
