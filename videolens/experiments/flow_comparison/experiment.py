"""One route in several models: curves over depth, and distances that know what noise makes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from videolens.errors import VideolensError
from videolens.experiments.common.statistics import Interval, centre
from videolens.experiments.flow.differences import mean_difference, paired, same_questions
from videolens.experiments.flow.measures import measure_named
from videolens.experiments.flow.result import FlowMap
from videolens.experiments.flow_comparison.result import Compared, CurveRow, DistanceRow, FlowComparison, ModelRow
from videolens.interventions.layer_sets import STYLES

MOST = 8
_POINTS, _SWAPS = 100, 500


def compare_flows(
    flows: Mapping[str, FlowMap],
    route: str = "cross-frame",
    *,
    task: str | None = None,
    measure: str = "correct option",
) -> FlowComparison:
    """Compare a route's effect over depth between models: bundled ones, checkpoints of a training run, seeds, others.

    1. Depth is (layer + ½) / n_layers, so that models of unlike depth lie on one axis.
    2. Of every model: its mean curve, the mean change over all windows, and the depth on which the effect centres.
    3. Of every two, on the questions that both were asked: the difference of both, and the *shape* distance, half of
       the summed difference between the two falls, each read at 100 depths and made to sum to 1: the share of the
       effect that lies at other depths. A distance is never below zero, so noise alone makes one: `shape_by_chance`
       says how much, by giving every question's two curves to the two models by chance, 500 times.

    >>> compare_flows({"tuned": tuned, "base": base}, "video -> question")  # doctest: +SKIP

    Args:
        flows: two to eight maps by the names that figures show, made with the default style.
        route: one that all of them have.
        task: of the questions; None: all.
        measure: of the change. The default is fair to models that guess: see `check_claims`, step 2.

    Raises:
        SelectionError: a map does not have the route or the task.
        VideolensError: fewer than two maps or more than eight, a name or a map that is none, maps of another style, no
            such measure, or two maps that share no question of which it is known.
    """
    _check(flows)
    about: dict[str, Any] = {"task": task, "measure": measure}
    unit = measure_named(measure).unit
    curves, models, settings = [], [], []
    for name, flow in flows.items():
        depth, curve = flow.settings.n_layers, flow.curve(route, **about)
        numbers = zip(curve.layers, curve.mean.tolist(), curve.low.tolist(), curve.high.tolist(), strict=True)
        curves += [CurveRow(name, layer, (layer + 0.5) / depth, *rest) for layer, *rest in numbers]
        effect = flow.effect(route, **about).widened(flow.noise_floor(route, **about))
        at = flow.centre(route, **about)
        ends = [(end + 0.5) / depth for end in (at.value, at.low, at.high)]
        models.append(ModelRow(name, curve.n, effect.value, effect.low, effect.high, *ends))
        settings.append(_settings(name, flow, route, unit, about))
    distances = [_distance(i, j, flows, route, about) for i, j in combinations(range(len(flows)), 2)]
    return FlowComparison(pd.DataFrame(curves), pd.DataFrame(models), pd.DataFrame(distances), settings=tuple(settings))


def _check(flows: Mapping[str, FlowMap]) -> None:
    if not isinstance(flows, Mapping) or not 2 <= len(flows) <= MOST:
        count = len(flows) if isinstance(flows, Mapping) else type(flows).__name__
        raise VideolensError(f"give two to {MOST} flow maps by name, {{'tuned': tuned, 'base': base}}; got {count}")
    for name, flow in flows.items():
        if not isinstance(name, str) or not name.strip() or not isinstance(flow, FlowMap):
            raise VideolensError(f"{name!r} is {flow!r:.80}: give every flow map a name, {{'tuned': tuned, …}}")
        if flow.settings.style != "centre":
            raise VideolensError(
                f"{name!r} cuts {STYLES[flow.settings.style]}, so its layers are no depth: trace it with the default "
                "style"
            )


def _settings(name: str, flow: FlowMap, route: str, unit: str, about: Mapping[str, Any]) -> Compared:
    made = flow.settings
    same = ("revision", "dtype", "device", "versions", "n_asked", "seed", "skipped", "noise")
    return Compared(
        model=name,
        **{field: getattr(made, field) for field in same},
        checkpoint=made.model,
        n_layers=made.n_layers,
        window=made.window or 0,
        route=route,
        unit=unit,
        **about,
    )


def _distance(i: int, j: int, flows: Mapping[str, FlowMap], route: str, about: Mapping[str, Any]) -> DistanceRow:
    a, b = (list(flows.values())[k] for k in (i, j))
    names = [list(flows)[k] for k in (i, j)]
    try:
        curves = same_questions(a, b, route, route, **about)
    except VideolensError:
        raise VideolensError(
            f"{names[0]!r} and {names[1]!r} share no question along {route!r} of which {about['measure']!r} is known: "
            "ask both models the same questions (samples='all' keeps those that one of them answers wrongly)"
        ) from None
    seed = a.settings.seed
    gap = mean_difference(a, b, route, route, **about)
    apart = paired(*curves, lambda x, y: _depth(x) - _depth(y), seed=seed)
    first, second = (_evenly(each) for each in curves)
    shape = paired(first, second, shape_distance, seed=seed)
    by_chance = np.nan if np.isnan(shape.value) else _by_chance(first, second, seed=seed)
    return DistanceRow(i, j, len(first), *_ends(gap), *_ends(apart), *_ends(shape), by_chance)


def _ends(found: Interval) -> tuple[float, float, float]:
    return found.value, found.low, found.high


def _depth(curve: Float[np.ndarray, "*draw layer"]) -> Float[np.ndarray, "*draw"]:
    return np.asarray((centre(curve) + 0.5) / curve.shape[-1])


def _evenly(curves: Float[np.ndarray, "question layer"]) -> Float[np.ndarray, "question depth"]:
    """Curves read at evenly spaced depths: straight lines between layers, and level beyond the first and the last."""
    n_layers = curves.shape[1]
    at, layers = (np.arange(_POINTS) + 0.5) / _POINTS, (np.arange(n_layers) + 0.5) / n_layers
    return np.stack([np.interp(at, layers, curve) for curve in curves])


def shape_distance(
    a: Float[np.ndarray, "*draw depth"], b: Float[np.ndarray, "*draw depth"]
) -> Float[np.ndarray, "*draw"]:
    """Half of the summed difference between two falls, each made to sum to 1; NaN where one never falls."""
    falls = []
    for curve in (a, b):
        fall = np.maximum(-curve, 0.0)
        total = fall.sum(axis=-1, keepdims=True)
        falls.append(np.divide(fall, total, out=np.full_like(fall, np.nan), where=total > 0))
    return np.asarray(np.abs(falls[0] - falls[1]).sum(axis=-1) / 2)


def _by_chance(a: Float[np.ndarray, "question depth"], b: Float[np.ndarray, "question depth"], *, seed: int) -> float:
    """The 95 % quantile of shape distances when every question's two curves change places by chance.

    Each model's curves are first divided by its own fall: that one effect is larger is no matter of shape, and swapped
    as they are the weaker model's noise would vanish beside the stronger one's effect.
    """
    a, b = (each / np.maximum(-each.mean(axis=0), 0.0).sum() for each in (a, b))
    mean, half = (a + b).mean(axis=0) / 2, (a - b) / 2
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(_SWAPS, len(a)))
    moved = signs @ half / len(a)
    drawn = shape_distance(mean + moved, mean - moved)
    return float(np.nanquantile(drawn, 0.95))
