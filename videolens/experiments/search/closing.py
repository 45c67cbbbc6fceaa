"""Closing as much as a test lets: units one after another, in groups that are halved where the test says no."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Unit = TypeVar("Unit")


def close_all(
    order: Sequence[Unit], closed: frozenset[Unit], accept: Callable[[frozenset[Unit]], bool]
) -> Iterator[tuple[int, frozenset[Unit]]]:
    """Go through units in an order and close each that the test accepts beside those that are closed already.

    1. Try to close a whole group of neighbours at once.
    2. If the test says no, halve it: the first half, then the second beside what is closed by then. A single unit that
       it does not accept stays open.

    What comes out is never worse than the test allows, in any order; which units it is depends on the order. Yields
    after every answer: how many units of the order are settled, and what is closed.

    Args:
        order: units that are tried, those first that are expected to matter least.
        closed: what is closed to begin with.
        accept: whether answers stay when these units are closed.
    """
    groups, settled = [list(order)], 0
    while groups:
        group = [unit for unit in groups.pop() if unit not in closed]
        if group and not accept(wider := closed | frozenset(group)):
            if len(group) > 1:
                half = len(group) // 2
                groups += [group[half:], group[:half]]
                yield settled, closed
                continue
        elif group:
            closed = wider
        settled += len(group)
        yield settled, closed
