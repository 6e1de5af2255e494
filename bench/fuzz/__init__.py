"""Bytes that nobody would send, for everything that reads bytes: see `__main__`."""
