"""Measurements anyone can repeat; nothing here is installed with the package."""
