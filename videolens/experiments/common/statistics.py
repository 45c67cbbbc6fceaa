"""Means that come with their uncertainty: the bootstrap over questions.

The question is the unit that is drawn: all layers of a question go into a replicate together, so a curve's band and the
interval of anything computed from the curve account for what the layers share.

No draw holds what no question showed. Where a few questions may change much, 20 or 50 can well miss them all, and a
bootstrap alone would then be sure that nothing changes. So where the values have known ends, every interval also
reaches as far as the questions that can have stayed unseen would take it (the rule of three: up to about 3 in n).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from jaxtyping import Float

from videolens.errors import VideolensError

REPLICATES = 2000
SLACK = 1e-9  # differences that rounding makes

Within = tuple[float | int, float | int]
"""The least and the greatest value that a question can have, on average over questions."""

Curves = Float[np.ndarray, "question layer"]
Curve = Float[np.ndarray, " layer"]
Statistic = Callable[[Float[np.ndarray, "*draw layer"]], Float[np.ndarray, "*draw"]]
"""Of a mean curve, or of many at once: it works along the last axis."""


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

    def widened(self, by: float) -> Interval:
        """The same with `by` more at either end."""
        return self if by == 0 else Interval(self.value, self.low - by, self.high + by, self.n)

    def __str__(self) -> str:
        if self.n < 2:
            return f"{self.value:.3g}, n = {self.n} (no interval)"
        # three digits that count: a share of 0.998 is not 1.0, and −21.8 % is not −22 %
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}], n = {self.n}"


def bootstrap(
    curves: Curves,
    statistic: Statistic,
    *,
    within: Within | None = None,
    level: float = 0.95,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Interval:
    """A statistic of the mean curve, with its bootstrap interval.

    1. Draw as many questions as there are, with replacement, `replicates` times; average each draw's curves, and apply
       the statistic. Draws on which it is undefined (NaN) are left out.
    2. The interval is BCa (Efron 1987): quantiles of the draws, corrected for bias and for skew, and widened as
       Student's t is for few questions. Of 1 question it has no width, and says nothing.
    3. Questions of a kind that was not drawn can lie anywhere `within` its ends. Up to `unseen(n)` of all questions may
       be of such a kind, so the interval reaches at least as far as if so many lay at either end.

    Args:
        curves: of every question.
        statistic: of mean curves, along the last axis: `lambda curves: curves.mean(axis=-1)`; with `within`, one that
            rises or falls with the curve as a whole, as a mean does.
        within: the least and the greatest value that a question can have, on average over questions. None: there are
            no such ends, and step 3 is left out: an interval says nothing of kinds of questions that n are likely to
            miss, and has no width if all are alike.
        level: of the interval.
        replicates: how many draws.
        seed: of the draws.

    Raises:
        VideolensError: no questions, a level outside (0, 1), or ends that do not hold the mean.
    """
    drawn = statistic(_replicates(curves, replicates, seed))
    if np.shape(drawn) != (replicates,):
        raise VideolensError(
            f"the statistic of {replicates} mean curves has the shape {np.shape(drawn)}: let it give one number for "
            "each, such as lambda curves: curves.mean(axis=-1)"
        )
    n, mean = len(curves), curves.mean(axis=0)
    value = float(statistic(mean))
    without = statistic((n * mean - curves) / max(n - 1, 1))
    drawn, without = drawn[~np.isnan(drawn)], without[~np.isnan(without)]
    low, high = (float(end[0]) for end in _bca(drawn[:, None], np.array([value]), without[:, None], level))
    if np.isnan(value):
        low = high = np.nan
    if within is not None and n > 1:
        ends = [float(statistic(end)) for end in _admixed(mean, n, within, level)]
        low, high = float(np.fmin(low, min(ends))), float(np.fmax(high, max(ends)))
    return Interval(value=value, low=low, high=high, n=n)


def bootstrap_mean(
    values: Float[np.ndarray, " question"], *, within: Within | None = None, level: float = 0.95, seed: int = 0
) -> Interval:
    """The mean of one number per question, with its interval, as `bootstrap` makes it."""
    return bootstrap(values[:, None], lambda means: means[..., 0], within=within, level=level, seed=seed)


def bootstrap_curve(
    curves: Curves, *, within: Within | None = None, level: float = 0.95, replicates: int = REPLICATES, seed: int = 0
) -> tuple[Curve, Curve, Curve]:
    """(mean, low, high) at every layer: the mean over questions and its interval, as `bootstrap` makes it.

    Raises:
        VideolensError: no questions, a level outside (0, 1), or ends that do not hold the mean.
    """
    drawn = _replicates(curves, replicates, seed)
    n, mean = len(curves), curves.mean(axis=0)
    low, high = _bca(drawn, mean, (n * mean - curves) / max(n - 1, 1), level)
    if within is not None and n > 1:
        least, most = _admixed(mean, n, within, level)
        low, high = np.fmin(low, least), np.fmax(high, most)
    return mean, low, high


def bootstrap_shares(
    counts: Curves, *, level: float = 0.95, replicates: int = REPLICATES, seed: int = 0
) -> tuple[Curve, Curve, Curve]:
    """(share, low, high) of everything counted that lies in each column, pooled over questions; intervals are BCa.

    NaN where nothing was counted; draws in which nothing was are left out.

    Raises:
        VideolensError: no questions, or a level outside (0, 1).
    """
    _check_level(level)
    drawn, pooled = _replicates(counts, replicates, seed), counts.sum(axis=0)
    if not pooled.sum():
        return (np.full(len(pooled), np.nan),) * 3
    drawn, without = (each[each.sum(axis=1) > 0] for each in (drawn, pooled - counts))
    drawn, without = (each / each.sum(axis=1, keepdims=True) for each in (drawn, without))
    share = pooled / pooled.sum()
    return share, *_bca(drawn, share, without, level)


def unseen(n: int, *, level: float = 0.95) -> float:
    """The share of all questions that can be of a kind of which n show none: at `level`, about 3 in n."""
    return float(1 - (1 - level) ** (1 / n))


def centre(curves: Float[np.ndarray, "*draw layer"]) -> Float[np.ndarray, "*draw"]:
    """The layer an effect centres on: the mean 0-based layer, weighted by how far the curve falls below zero there.

    Layers where the mean change is a rise weigh nothing. NaN if the curve falls nowhere.
    """
    weight = np.clip(-curves, 0, None)
    total = weight.sum(axis=-1)
    return np.divide(weight @ np.arange(curves.shape[-1]), total, out=np.full(total.shape, np.nan), where=total > 0)


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
    return _counts(n, replicates, seed) @ curves / n


@lru_cache(maxsize=8)
def _counts(n: int, replicates: int, seed: int) -> Float[np.ndarray, "replicate question"]:
    """How often each draw holds each question. All curves of as many questions share their draws."""
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=replicates).astype(float)
    counts.flags.writeable = False
    return counts


def _admixed(mean: Curve, n: int, within: Within, level: float) -> tuple[Curve, Curve]:
    """The mean curve if as many questions as can have stayed unseen lay at the lower, or at the upper, end."""
    _check_level(level)
    least, most = within
    if not (least <= mean.min() + SLACK and mean.max() <= most + SLACK):
        raise VideolensError(
            f"values are said to lie within {least:g} … {most:g}, but their mean runs from {mean.min():g} to "
            f"{mean.max():g}"
        )
    share = unseen(n, level=level)
    return (1 - share) * mean + share * least, (1 - share) * mean + share * most


def _bca(
    drawn: Float[np.ndarray, "replicate layer"],
    value: Curve,
    without: Float[np.ndarray, "left_out layer"],
    level: float,
) -> tuple[Curve, Curve]:
    """The ends of BCa intervals, column by column.

    `without` holds the estimates without each question. NaN where no draw has an estimate; a single question's own.
    """
    _check_level(level)
    count, n = len(drawn), len(without)
    if n == 1 or count == 0:
        alone = value if count else np.full(len(value), np.nan)
        return alone, alone
    if n == 0:
        return np.nanmin(drawn, axis=0), np.nanmax(drawn, axis=0)
    # how far the draws' median lies from the estimate; draws equal to it, but for rounding, count half
    near = SLACK * np.maximum(1.0, np.abs(value))
    below = ((drawn < value - near).mean(axis=0) + (drawn < value + near).mean(axis=0)) / 2
    bias = _ndtri(np.clip(below, 0.5 / count, 1 - 0.5 / count))
    # a twist by skewness, from the jackknife
    pull = without.mean(axis=0) - without
    spread = (pull**2).sum(axis=0)
    skew = np.divide((pull**3).sum(axis=0), 6 * spread**1.5, out=np.zeros(len(value)), where=spread > 0)
    ordered, ends = np.sort(drawn, axis=0), []
    for sign in (-1, 1):
        z = bias + sign * _student((1 + level) / 2, n - 1) * np.sqrt(n / (n - 1))
        room = 1 - skew * z
        at = np.where(room > 0, _ndtr(bias + z / np.where(room > 0, room, 1.0)), (1 + sign) / 2) * (count - 1)
        lower, columns = np.minimum(at.astype(int), count - 2) if count > 1 else at.astype(int), np.arange(len(value))
        upper = np.minimum(lower + 1, count - 1)
        ends.append(ordered[lower, columns] + (at - lower) * (ordered[upper, columns] - ordered[lower, columns]))
    return ends[0], ends[1]


def _student(p: float, freedom: int) -> float:
    """Student's quantile, by the first terms of its expansion about the normal one (below 3 of freedom too small)."""
    z = NormalDist().inv_cdf(p)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, start=1))


_ndtr = np.vectorize(NormalDist().cdf, otypes=[float])
_ndtri = np.vectorize(NormalDist().inv_cdf, otypes=[float])


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise VideolensError(f"the level of an interval lies between 0 and 1, got {level}")
