"""What a search opens and closes, and in which order it tries."""

from __future__ import annotations

import random
from collections.abc import Sequence

from videolens.experiments.attribution.experiment import attribute
from videolens.experiments.search.judging import Judge
from videolens.interventions.partition import Partition, Unit
from videolens.interventions.route_pathway import is_searched

ORDERS = ("attribution", "last layer first", "random")
_SCREENED = 40  # questions that attribution is asked of


def units_of(judge: Judge, *, grain: str = "routes", heads: bool = False) -> list[Unit]:
    """All units of some questions, from the last layer down."""
    n_heads = judge.model.cfg.n_heads if heads else None
    found: dict[Unit, None] = {}
    for members in judge.layouts:
        partition = Partition.of(judge.prompts[members[0]].tokens, grain)
        found |= dict.fromkeys(partition.units(judge.model.cfg.n_layers, n_heads))
    return sorted((unit for unit in found if is_searched(unit.route)), key=lambda unit: -unit.layer)


def by_attribution(
    judge: Judge, units: Sequence[Unit], *, grain: str = "routes", heads: bool = False, seed: int = 0
) -> tuple[list[Unit], float]:
    """Units by the magnitude of their attribution to a sample of the questions, the smallest first; and what that has
    cost, in full forwards."""
    some = random.Random(seed).sample(list(judge.prompts), min(_SCREENED, judge.n))
    scores = attribute(judge.model, some, grain=grain, heads=heads, verify=1, progress=False)
    magnitude = {
        Unit(int(row.layer), int(row.head) if heads else None, str(row.route)): float(row.magnitude)
        for row in scores.units().itertuples()
    }
    ranked = sorted(units, key=lambda unit: magnitude.get(unit, 0.0))
    return ranked, len(some) * (scores.settings.forwards or 0.0)


def ordered(
    judge: Judge, order: str, drawn: random.Random, *, grain: str = "routes", heads: bool = False, seed: int = 0
) -> tuple[list[Unit], float]:
    """All units, those first that are to be closed first; and what working that out has cost, in full forwards."""
    units = units_of(judge, grain=grain, heads=heads)
    if order == "attribution":
        return by_attribution(judge, units, grain=grain, heads=heads, seed=seed)
    if order == "random":
        drawn.shuffle(units)
    return units, 0.0
