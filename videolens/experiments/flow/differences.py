"""How much two routes, or two models, differ on the same questions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from videolens.errors import VideolensError
from videolens.experiments.common.statistics import Interval, bootstrap, bootstrap_mean
from videolens.experiments.flow.result import FlowMap

Curves = Float[np.ndarray, "question layer"]
OtherCurves = Float[np.ndarray, "question other_layer"]
"""Of a model that may have another depth."""


def mean_difference(
    a: FlowMap, b: FlowMap, of_a: str, of_b: str, *, task: str | None = None, measure: str = "answer"
) -> Interval:
    """The mean change over all windows along one route minus that along another, on the same questions."""
    first, second = same_questions(a, b, of_a, of_b, task=task, measure=measure)
    one, other = (flow.within(route, task=task, measure=measure) for flow, route in ((a, of_a), (b, of_b)))
    within = None if one is None or other is None else (one[0] - other[1], one[1] - other[0])
    gap = first.mean(axis=1) - second.mean(axis=1)
    found = bootstrap_mean(gap, within=within, seed=a.settings.seed)
    return found.widened(sum(each.noise_floor(of, task=task, measure=measure) for each, of in ((a, of_a), (b, of_b))))


def same_questions(
    a: FlowMap, b: FlowMap, of_a: str, of_b: str, *, task: str | None = None, measure: str = "answer"
) -> tuple[Curves, OtherCurves]:
    """The changes of the questions that both have, in the same order."""
    tables = [flow.by_question(route, task=task, measure=measure).dropna() for flow, route in ((a, of_a), (b, of_b))]
    shared = tables[0].index.intersection(tables[1].index)
    if len(shared) == 0:
        raise VideolensError(f"no question was traced along {of_a!r} in {a!r} and along {of_b!r} in {b!r}")
    first, second = (table.loc[shared].to_numpy(dtype=float) for table in tables)
    return first, second


def paired(
    a: Curves, b: OtherCurves, statistic: Callable[[np.ndarray, np.ndarray], np.ndarray], *, seed: int
) -> Interval:
    """A statistic of two mean curves; each draw takes the same questions for both."""
    n = a.shape[1]
    return bootstrap(np.concatenate([a, b], axis=1), lambda both: statistic(both[..., :n], both[..., n:]), seed=seed)
