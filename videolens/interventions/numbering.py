"""Layers and heads as interventions take them: one whole number or several, counted from 0."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import index
from typing import SupportsIndex, cast

from videolens.errors import VideolensError


def whole_numbers(kind: str, numbers: Iterable[SupportsIndex] | SupportsIndex) -> tuple[int, ...]:
    """Sorted, each once; a `VideolensError` if one is negative or no whole number. `kind`: their name, as "layer"."""
    try:
        several = isinstance(numbers, Iterable) and getattr(numbers, "ndim", 1) > 0
        each = list(cast(Iterable, numbers) if several else [cast(SupportsIndex, numbers)])
        if isinstance(numbers, Mapping) or any(isinstance(n, bool) for n in each):
            raise TypeError("true and false are whole numbers to Python, and a mapping is its keys")
        chosen = tuple(sorted({index(n) for n in each}))
    except TypeError as error:
        raise VideolensError(
            f"{kind}s are {numbers!r}: give a whole number or several, such as range(2, 6); they count from 0"
        ) from error
    if chosen and chosen[0] < 0:
        raise VideolensError(f"{kind} {chosen[0]} is negative: {kind}s count from 0")
    return chosen


def some_numbers(kind: str, numbers: Iterable[SupportsIndex] | SupportsIndex) -> tuple[int, ...]:
    """As `whole_numbers`, but none at all is an error, too: what acts nowhere changes nothing."""
    if not (chosen := whole_numbers(kind, numbers)):
        raise VideolensError(f"{kind}s are empty, so nothing would be changed: name at least one {kind}")
    return chosen


def chosen_numbers(kind: str, given: Iterable[SupportsIndex] | SupportsIndex | None, n: int) -> tuple[int, ...]:
    """Some of n layers or heads, as users give them: sorted, each once, at least one. None: all of them.

    Args:
        kind: what is counted, such as "layer".
        given: one number or several.
        n: how many there are.

    Raises:
        VideolensError: one is negative, no whole number or not below n; or none is given.
    """
    chosen = whole_numbers(kind, range(n) if given is None else given)
    check_within(kind, chosen, n)
    if not chosen:
        raise VideolensError(f"{kind}s are empty: name at least one of 0 … {n - 1}, or leave them out for all of them")
    return chosen


def check_within(kind: str, numbers: tuple[int, ...], n: int) -> None:
    """Raise a `VideolensError` if one of the sorted numbers is not below n."""
    if numbers and numbers[-1] >= n:
        raise VideolensError(f"{kind} {numbers[-1]} is outside the model: its {kind}s are 0 … {n - 1}")
