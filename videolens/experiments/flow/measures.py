"""What the change along a route is measured by: the followed answer, the right option, accuracy, logits.

The followed answer is the token that the unblocked model ranks first. Where a model guesses, it was picked for being
the highest of several near equals, and any disturbance tends to lower it: that fall is no sign of information. What is
right was not picked by looking at the model, so the measures of the right option have no such bias.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from videolens.errors import VideolensError, near
from videolens.experiments.common.statistics import Interval, Within, bootstrap_curve, proportion
from videolens.interventions.layer_sets import layer_bins

Values = Float[np.ndarray, " row"]


@dataclass(frozen=True)
class Measure:
    """A change by a knockout, negative where the knockout does harm.

    Attributes:
        name: how it is asked for.
        unit: "percent", "points" (hundredths of a probability, or of a share of questions) or "logits".
        label: for the axis of a figure.
        of: the change in every row of a flow map's table; NaN where it is not known.
        ends: the least and the greatest that it can be in every row. None: it has no ends, as logits have none.
    """

    name: str
    unit: str
    label: str
    of: Callable[[pd.DataFrame], Values]
    ends: Callable[[pd.DataFrame], tuple[Values, Values]] | None = None

    def within(self, table: pd.DataFrame) -> Within | None:
        """The ends, on average over the rows in which the change is known; never nearer than the mean change comes."""
        changes = self.of(table)
        if self.ends is None or not (known := ~np.isnan(changes)).any():
            return None
        least, most = (float(end[known].mean()) for end in self.ends(table))
        means = pd.Series(changes[known]).groupby(table["layer"].to_numpy()[known]).mean()
        return min(least, float(means.min())), max(most, float(means.max()))

    @property
    def sign(self) -> str:
        """The unit after a number."""
        return {"percent": " %", "points": " points", "logits": " logits"}[self.unit]


def _column(table: pd.DataFrame, name: str) -> Values:
    return table[name].to_numpy(dtype=float, na_value=np.nan)


def _difference(what: str, *, scale: float) -> Callable[[pd.DataFrame], Values]:
    after = f"{what}_knockout"
    before = f"{what}_base" if what != "correct" else what
    return lambda table: (_column(table, after) - _column(table, before)) * scale


def _shift(before: Values) -> tuple[Values, Values]:
    """In points, from a probability to 0 or to 1."""
    return -100 * before, 100 * (1 - before)


def _relative_ends(table: pd.DataFrame) -> tuple[Values, Values]:
    """To nothing, or to 1; at most doubled, for from a tiny probability a rise has no end to speak of."""
    before = _column(table, "p_base")
    return np.full(len(before), -100.0), np.minimum(100 / np.maximum(before, 1e-9) - 100, 100.0)


def _right_relative_ends(table: pd.DataFrame) -> tuple[Values, Values]:
    before = _column(table, "p_correct_base")
    least, most = _shift(before)
    mean = before[~np.isnan(before)].mean()
    return least / mean, most / mean


def _right_relative(table: pd.DataFrame) -> Values:
    """Relative to the mean over the questions, not to each question's own: where that is tiny, so is what it tells."""
    before = _column(table, "p_correct_base")
    known = before[~np.isnan(before)]
    return (_column(table, "p_correct_knockout") - before) / known.mean() * 100 if len(known) else before


def _logits_relative(table: pd.DataFrame) -> Values:
    """Relative to the mean over the questions; not known where that is no lead at all."""
    before, after = (_column(table, f"logit_diff_{when}") for when in ("base", "knockout"))
    lead = before[~np.isnan(before)].mean() if not np.isnan(before).all() else np.nan
    return (after - before) / (lead if lead > 0 else np.nan) * 100


def _right_among(table: pd.DataFrame) -> Values:
    before, after = (_column(table, f"logit_diff_{when}") for when in ("base", "knockout"))
    return np.where(np.isnan(before), np.nan, ((after > 0).astype(float) - (before > 0)) * 100)


MEASURES = {
    measure.name: measure
    for measure in (
        Measure(
            "answer",
            "percent",
            "change in answer probability (%)",
            lambda table: _column(table, "change_percent"),
            _relative_ends,
        ),
        Measure(
            "correct option",
            "points",
            "change in probability\nof the right option (points)",
            _difference("p_correct", scale=100.0),
            lambda table: _shift(_column(table, "p_correct_base")),
        ),
        Measure(
            "correct option, relative",
            "percent",
            "change in probability\nof the right option (% of its mean)",
            _right_relative,
            _right_relative_ends,
        ),
        Measure(
            "accuracy",
            "points",
            "change in accuracy (points)",
            _difference("correct", scale=100.0),
            lambda table: _shift(_column(table, "correct")),
        ),
        Measure(
            "accuracy among options",
            "points",
            "change in accuracy\namong options (points)",
            _right_among,
            lambda table: _shift((_column(table, "logit_diff_base") > 0).astype(float)),
        ),
        Measure(
            "logit difference",
            "logits",
            "change in logit,\nright minus best other",
            _difference("logit_diff", scale=1.0),
        ),
        Measure(
            "logit difference, relative",
            "percent",
            "change in logit, right minus\nbest other (% of its mean)",
            _logits_relative,
        ),
    )
}
"""Measures by the name that `FlowMap`'s methods and figures take.

"answer" (the paper's): relative change of the followed answer's probability. "correct option": change of the right
option's probability, in points. "correct option, relative": the same, in percent of its mean unblocked probability
over the questions at hand. "accuracy": change of the share of questions whose first-ranked token is right.
"accuracy among options": the same, where only the options' tokens are ranked. "logit difference": change of the right
option's logit minus the best of the others. "logit difference, relative": the same, in percent of its mean; unlike a
probability it does not saturate."""

AMONG = ("all tokens", "options")
"""What is ranked, when it is asked whether the first is right."""

_KINDS = {"all": "accuracy", "correct": "share that stays right", "wrong": "share that turns right"}


def measure_named(name: str) -> Measure:
    """One of `MEASURES`.

    Raises:
        VideolensError: no such measure; the message lists them.
    """
    if name not in MEASURES:
        raise VideolensError(near(str(name), MEASURES, kind="measure"))
    return MEASURES[name]


@dataclass(frozen=True, eq=False)
class ShareRight:
    """How many questions are right when a route is cut, per knockout.

    Attributes:
        kind: "accuracy" where all questions were traced. Of questions that were chosen for being right or wrong it is
            no accuracy, and says so: "share that stays right", "share that turns right".
        layers: 0-based layer that names each knockout.
        share, low, high: share that is right when it is cut, 0 … 1, with Wilson's 95 % interval.
        unblocked: the same when nothing is cut.
        drop, drop_low, drop_high: share minus unblocked share in points, with its 95 % bootstrap interval over the
            questions, each before and after: negative where cutting does harm.
        n: questions, the denominator of every share. Questions whose right answer is not known are not among them.
        unknown: how many those are.
    """

    kind: str
    layers: tuple[int, ...]
    share: Float[np.ndarray, " layer"]
    low: Float[np.ndarray, " layer"]
    high: Float[np.ndarray, " layer"]
    unblocked: Interval
    drop: Float[np.ndarray, " layer"]
    drop_low: Float[np.ndarray, " layer"]
    drop_high: Float[np.ndarray, " layer"]
    n: int
    unknown: int = 0

    def to_dataframe(self) -> pd.DataFrame:
        """One row per knockout: layer, n, share, low, high, unblocked, drop_points, drop_low, drop_high."""
        return pd.DataFrame(
            {
                "layer": self.layers,
                "n": self.n,
                "share": self.share,
                "low": self.low,
                "high": self.high,
                "unblocked": self.unblocked.value,
                "drop_points": self.drop,
                "drop_low": self.drop_low,
                "drop_high": self.drop_high,
            }
        )


def share_right(table: pd.DataFrame, layers: tuple[int, ...], *, samples: str, among: str, seed: int) -> ShareRight:
    """Shares of right answers from the rows of one route, question by question with all its knockouts in order.

    Raises:
        VideolensError: `among` is unknown, or of no question the right answer is known.
    """
    if among not in AMONG:
        raise VideolensError(near(str(among), AMONG, kind="set of tokens to be first among"))
    if among == "options":
        values = [_column(table, f"logit_diff_{when}") for when in ("base", "knockout")]
        right = [np.where(np.isnan(value), np.nan, value > 0) for value in values]
    else:
        right = [_column(table, name) for name in ("correct", "correct_knockout")]
    before, after = (each.reshape(-1, len(layers)) for each in right)
    known = ~np.isnan(before).any(axis=1)
    before, after, n = before[known], after[known], int(known.sum())
    if n == 0:
        raise VideolensError("of no question along this route the right answer is known, so there is no accuracy")
    shares = [proportion(int(hits), n) for hits in after.sum(axis=0)]
    was = float(before.mean())
    drop, low, high = bootstrap_curve((after - before) * 100, within=(-100 * was, 100 * (1 - was)), seed=seed)
    return ShareRight(
        kind=_KINDS[samples],
        layers=layers,
        share=np.array([share.value for share in shares]),
        low=np.array([share.low for share in shares]),
        high=np.array([share.high for share in shares]),
        unblocked=proportion(int(before[:, 0].sum()), n),
        drop=drop,
        drop_low=low,
        drop_high=high,
        n=n,
        unknown=int((~known).sum()),
    )


def open_layers(
    flow: Any, route: str, *, threshold: float | int, bin: int | None, groups: Sequence[str | None], measure: str
) -> list[int]:
    """See `FlowMap.open_layers`."""
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or math.isnan(threshold):
        raise VideolensError(f"threshold = {threshold!r}: give a number of percent, such as -5")
    changes = [found.mean(axis=0) for group in groups if len(found := flow.changes(route, task=group, measure=measure))]
    if not changes:
        raise VideolensError(f"no question of this map has a known {measure!r} along {route!r}: nothing to choose by")
    bins = layer_bins(flow.settings.n_layers, bin)
    return [x for each in bins if any(change[list(each)].mean() < threshold for change in changes) for x in each]
