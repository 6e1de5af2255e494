"""Guards for other people's frameworks, one module each: `from budao.adapters.asgi import GuardMiddleware`.

Importing this package imports none of them, since each needs its own extra.
"""

__all__: list[str] = []
