"""Which questions the procedural benchmark asks, and so which the bundled models can have learned."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from videolens.datasets.shapes_tasks import DIRECTIONS, MAKERS, NUMBERS, PLACES, SENSES
from videolens.datasets.shapes_world import BACKGROUNDS, COLOURS, SHAPES

_OPTIONS = {*DIRECTIONS, *SENSES, *NUMBERS, *PLACES, *COLOURS, *SHAPES, *BACKGROUNDS}


def foreign_words(stem: str, options: Sequence[str]) -> list[str]:
    """What of a question the benchmark never asks: its stem, options. Empty: it asks this.

    Colours and shapes may be any of the benchmark's; upper and lower case do not matter.
    """
    said = [stem] if _pattern(stem) not in _stems() else []
    known = _OPTIONS | {f"{before} to {after}" for before in BACKGROUNDS for after in BACKGROUNDS}
    return said + [option for option in options if option.strip().lower() not in known]


def _pattern(stem: str) -> str:
    """A stem with its colours and shapes taken out."""
    kinds = dict.fromkeys(COLOURS, "COLOUR") | dict.fromkeys(SHAPES, "SHAPE")
    words = stem.lower().replace("?", " ?").split()
    return " ".join(kinds.get(word, word) for word in words)


@cache
def _stems() -> frozenset[str]:
    """Patterns of all stems, from a few scenes of every task."""
    scenes = [make(np.random.default_rng(seed)) for make in MAKERS.values() for seed in range(4)]
    return frozenset(_pattern(ask.stem) for _, asks in scenes for ask in asks)
