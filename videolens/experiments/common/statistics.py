"""Means that come with their uncertainty: the bootstrap over questions.

The question is the unit that is drawn: all layers of a question go into a replicate together, so a curve's band and the
interval of anything computed from the curve account for what the layers share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from videolens.errors import VideolensError

REPLICATES = 2000

Curves = Float[np.ndarray, "question layer"]
Curve = Float[np.ndarray, " layer"]


@dataclass(frozen=True)
class Interval:
    """An estimate with its bootstrap interval, in the units of what was estimated, from n questions.

    NaN throughout: the estimate is not defined (the centre of a curve that never falls).
    """

    value: float
    low: float
    high: float
    n: int

    def columns(self, name: str, *, unit: str = "") -> dict[str, float]:
        """The same as columns of a table: `name` and its unit, `name_low`, `name_high`."""
        return {f"{name}{unit}": self.value, f"{name}_low": self.low, f"{name}_high": self.high}

    def __str__(self) -> str:
        if self.n < 2:
            return f"{self.value:.3g}, n = {self.n} (no interval)"
        # three digits that count: a share of 0.998 is not 1.0, and −21.8 % is not −22 %
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}], n = {self.n}"


def bootstrap(
    curves: Curves,
    statistic: Callable[[Curve], float],
    *,
    level: float = 0.95,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Interval:
    """A statistic of the mean curve, with its percentile bootstrap interval.

    1. Draw as many questions as there are, with replacement, `replicates` times; average each draw's curves.
    2. Apply the statistic to every averaged curve. Draws on which it is undefined (NaN) are left out.
    3. The interval runs between the quantiles that leave (1 − level)/2 on either side.

    Raises:
        VideolensError: no questions, or a level outside (0, 1).
    """
    value = statistic(curves.mean(axis=0)) if len(curves) else np.nan
    drawn = np.array([statistic(mean) for mean in _replicates(curves, replicates, seed)])
    low, high = _quantiles(drawn[~np.isnan(drawn)], level)
    return Interval(value=float(value), low=float(low), high=float(high), n=len(curves))


def bootstrap_curve(
    curves: Curves, *, level: float = 0.95, replicates: int = REPLICATES, seed: int = 0
) -> tuple[Curve, Curve, Curve]:
    """(mean, low, high) at every layer: the mean over questions and its percentile bootstrap interval.

    Raises:
        VideolensError: no questions, or a level outside (0, 1).
    """
    low, high = _quantiles(_replicates(curves, replicates, seed), level)
    return curves.mean(axis=0), low, high


def bootstrap_shares(
    counts: Curves, *, level: float = 0.95, replicates: int = REPLICATES, seed: int = 0
) -> tuple[Curve, Curve, Curve]:
    """(share, low, high) of everything counted that lies in each column, pooled over questions.

    NaN where nothing was counted; draws in which nothing was are left out.

    Raises:
        VideolensError: no questions, or a level outside (0, 1).
    """
    drawn, pooled = _replicates(counts, replicates, seed), counts.sum(axis=0)
    drawn = drawn[drawn.sum(axis=1) > 0]
    low, high = _quantiles(drawn / drawn.sum(axis=1, keepdims=True), level)
    return pooled / pooled.sum() if pooled.sum() else np.full(len(pooled), np.nan), low, high


def centre(curve: Curve) -> float:
    """The layer an effect centres on: the mean 0-based layer, weighted by how far the curve falls below zero there.

    Layers where the mean change is a rise weigh nothing. NaN if the curve falls nowhere.
    """
    weight = np.clip(-curve, 0, None)
    return float(np.arange(len(curve)) @ weight / weight.sum()) if weight.sum() > 0 else float("nan")


def proportion(hits: int, n: int, *, z: float = 1.959964) -> Interval:
    """A share of n tries, with Wilson's 95 % interval, which is right at 0 and n as well.

    Raises:
        VideolensError: n is not positive, or hits is outside 0 … n.
    """
    if n < 1 or not 0 <= hits <= n:
        raise VideolensError(f"a share needs 0 ≤ hits ≤ n and n ≥ 1, got {hits} of {n}")
    share, scale = hits / n, 1 + z * z / n
    middle = (share + z * z / (2 * n)) / scale
    half = z / scale * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(value=share, low=float(max(0.0, middle - half)), high=float(min(1.0, middle + half)), n=n)


def _replicates(curves: Curves, replicates: int, seed: int) -> Float[np.ndarray, "replicate layer"]:
    """Mean curves of bootstrap draws, as counts times curves: the draws themselves are never laid out."""
    n = len(curves)
    if n == 0:
        raise VideolensError("there is no question to draw from: the mean of nothing has no interval")
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=replicates)
    return counts @ curves / n


def _quantiles(drawn: Float[np.ndarray, " replicate *layer"], level: float) -> Float[np.ndarray, " 2 *layer"]:
    if not 0 < level < 1:
        raise VideolensError(f"the level of an interval lies between 0 and 1, got {level}")
    if len(drawn) == 0:
        return np.full((2, *drawn.shape[1:]), np.nan)
    return np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
