"""What a checker says no to without a guard, it says no to with one. Each expected complaint is an ignore that is used."""

from __future__ import annotations

from budao import Guard

guard = Guard("inventory")


@guard
async def stock(sku: str, *, fresh: bool = False) -> int:
    return len(sku) + fresh


@guard(safe=True)
def count(sku: str, /) -> int:
    return len(sku)


@guard.ladder(template=0)
def guess(sku: str) -> int:
    return len(sku)


async def program() -> None:
    await stock(1)  # type: ignore[arg-type]
    await stock("a", True)  # type: ignore[call-arg, misc, arg-type, unused-ignore]
    count(sku="a")  # type: ignore[call-arg]
    guess()  # type: ignore[call-arg]
    text: str = await stock("a")  # type: ignore[assignment]
    print(text)
