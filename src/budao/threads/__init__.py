"""The same machines for threaded programs: one lock, no event loop."""

from budao.threads.files import FileWatch, Following, follow

__all__ = ["FileWatch", "Following", "follow"]
