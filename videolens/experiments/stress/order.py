"""What is done to the order of a clip's frames: some are dropped, repeated or in other places, or it is slowed down."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Places = list[int | None]
"""Which frame stands in each place, counted from 0; None: a black one."""
ChangeOrder = Callable[[int, int, np.random.Generator], Places]
"""(number of frames, severity 1 … 3, random numbers) → places."""

_SHARES = (1 / 8, 1 / 4, 1 / 2)


def dropped(n: int, severity: int, rng: np.random.Generator) -> Places:
    """An eighth, a quarter, half of the frames are black."""
    gone = set(rng.permutation(n)[: _some(n, severity)].tolist())
    return [None if place in gone else place for place in range(n)]


def repeated(n: int, severity: int, rng: np.random.Generator) -> Places:
    """In an eighth, a quarter, half of the places the frame before is shown again."""
    again = set((1 + rng.permutation(n - 1)[: _some(n, severity)]).tolist())
    places: Places = []
    for place in range(n):
        places.append(places[-1] if place in again else place)
    return places


def shuffled(n: int, severity: int, rng: np.random.Generator) -> Places:
    """Two frames change places, two pairs do, all are in a random order."""
    order = rng.permutation(n).tolist()
    if severity == 3:
        while order == sorted(order):
            order = rng.permutation(n).tolist()
        return order
    places = list(range(n))
    for one, other in list(zip(order[::2], order[1::2], strict=False))[:severity]:
        places[one], places[other] = other, one
    return list(places)


def slow(n: int, severity: int, rng: np.random.Generator) -> Places:
    """Only the first 3/4, 1/2, 1/4 of the clip, slowed down to its whole length: another frame rate."""
    rate = (0.75, 0.5, 0.25)[severity - 1]
    return [int(place * rate) for place in range(n)]


ORDER: dict[str, ChangeOrder] = {
    "dropped frames": dropped,
    "repeated frames": repeated,
    "shuffled frames": shuffled,
    "slow motion": slow,
}


def is_as_it_was(places: Sequence[int | None]) -> bool:
    """Whether every frame stands in its own place."""
    return list(places) == list(range(len(places)))


def _some(n: int, severity: int) -> int:
    return max(1, round(n * _SHARES[severity - 1]))
