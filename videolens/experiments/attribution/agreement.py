"""How far scores agree with exact knockouts of the same units, with intervals over questions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from jaxtyping import Float

from videolens.experiments.common.statistics import Interval, bootstrap, bootstrap_mean, unseen

MEASURES = {
    "spearman": "Spearman's ρ of scores and exact changes",
    "magnitudes": "Spearman's ρ of their magnitudes",
    "signs": "same sign, among the half with the larger exact changes",
    "recovered": "slope of scores on exact changes: the share of the magnitude that scores recover",
    "recall": "share of the units with the largest exact changes that scores rank highest",
}
"""Measures of agreement, by name."""

Values = Float[np.ndarray, " unit"]


def agreement(closed: pd.DataFrame, measure: str, *, top: int, seed: int) -> Interval:
    """One measure of agreement over units that were closed exactly, pooled over questions, with its interval.

    Rank correlations are of ranks among all the units; a bootstrap over questions draws each question's units together.

    Args:
        closed: rows with "task", "question", "score" and "exact".
        measure: one of `MEASURES`.
        top: for "recall", how many units of a question; at most a quarter of those closed.
        seed: of the bootstrap.
    """
    question = closed.groupby(["task", "question"], sort=False).ngroup().to_numpy()
    score, exact = closed["score"].to_numpy(dtype=float), closed["exact"].to_numpy(dtype=float)
    if measure == "recall":
        each = np.array([_recall(score[question == i], exact[question == i], top) for i in range(question.max() + 1)])
        return bootstrap_mean(each, within=(0.0, 1.0), seed=seed)
    if measure == "signs":
        large = np.abs(exact) >= np.median(np.abs(exact))
        same = large & (np.sign(score) == np.sign(exact))
        return _with_unseen(bootstrap(_sums(question, same, large), _ratio, seed=seed))
    if measure == "recovered":
        return bootstrap(_sums(question, score * exact, exact * exact), _ratio, seed=seed)
    if measure == "magnitudes":
        score, exact = np.abs(score), np.abs(exact)
    x, y = (_centred_ranks(values) for values in (score, exact))
    return bootstrap(_sums(question, np.ones(len(x)), x, y, x * y, x * x, y * y), _correlation, seed=seed)


def agreements(closed: pd.DataFrame, *, top: int, seed: int) -> Iterator[dict[str, object]]:
    """The rows of `Attribution.agreement`: of all routes together ("all"), and of each."""
    for route, rows in [("all", closed), *closed.groupby("route", sort=False)]:
        row: dict[str, object] = {"route": route, "units": len(rows)}
        for measure in MEASURES:
            if measure != "recall" or route == "all":
                row |= agreement(rows, measure, top=top, seed=seed).columns(measure)
        yield row


def _recall(score: Values, exact: Values, top: int) -> float:
    k = max(1, min(top, len(score) // 4))
    highest = [set(np.argsort(-np.abs(values), kind="stable")[:k]) for values in (score, exact)]
    return len(highest[0] & highest[1]) / k


def _centred_ranks(values: Values) -> Values:
    """From −½ to ½; equal values have the mean of their ranks."""
    return (pd.Series(values).rank().to_numpy() - 0.5) / len(values) - 0.5


def _sums(question: np.ndarray, *values: np.ndarray) -> Float[np.ndarray, "question sum"]:
    """Of every question, the sum of each of several values."""
    n = int(question.max()) + 1
    return np.stack([np.bincount(question, weights=each.astype(float), minlength=n) for each in values], axis=1)


def _ratio(mean: Float[np.ndarray, "*draw 2"]) -> Float[np.ndarray, "*draw"]:
    """The first sum over the second; NaN where that is 0."""
    return np.asarray(mean[..., 0] / np.where(mean[..., 1] > 0, mean[..., 1], np.nan))


def _with_unseen(share: Interval) -> Interval:
    """A share whose interval allows for questions of a kind that these did not show, as `bootstrap_mean` does."""
    if share.n < 2 or np.isnan(share.value):
        return share
    more = unseen(share.n)
    ends = (1 - more) * share.value, (1 - more) * share.value + more
    return Interval(share.value, min(share.low, ends[0]), max(share.high, ends[1]), share.n)


def _correlation(mean: Float[np.ndarray, "*draw 6"]) -> Float[np.ndarray, "*draw"]:
    """Pearson's correlation from mean sums: of 1, x, y, xy, x², y²; NaN where nothing varies."""
    n, x, y, xy, xx, yy = np.moveaxis(mean, -1, 0)
    spread = (n * xx - x * x) * (n * yy - y * y)
    root = np.sqrt(np.where(spread > 1e-18, spread, np.nan))
    return np.asarray((n * xy - x * y) / root)
