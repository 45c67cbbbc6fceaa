"""What is measured of frame swaps, and when a prediction of it is held: used by predictions.py.

Tables are those of frame_swaps.py. Layers count from 1; a patch is at what enters a layer. Effects: 0 as the clean run,
1 as the run of the clip backwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan

import numpy as np
import pandas as pd

from videolens.experiments.common.statistics import Interval, bootstrap, bootstrap_mean, proportion

Measure = Callable[[pd.DataFrame], Interval]
TIMED = ("moving direction", "action antonym", "action sequence", "object count")
ENDS = {"effect": None, "points": (-100, 100), "kept": (0, 1)}
"""What one pair can show, where that is known; two probabilities of one pair are no further apart than one can fall."""


@dataclass(frozen=True)
class Prediction:
    """What is measured in one of `frame_swaps.ASKED`, and the range that knockouts say it lies in."""

    claim: str
    says: str
    asked: str
    low: float
    high: float
    measure: Measure

    def verdict(self, found: Interval) -> str:
        """By the interval of what was found."""
        if isnan(found.value) or isnan(found.low) or isnan(found.high):
            return "cannot be told"
        if self.low <= found.low and found.high <= self.high:
            return "held"
        return "refuted" if found.high < self.low or found.low > self.high else "cannot be told"


def curves(
    table: pd.DataFrame, unit: str, tasks: Sequence[str] | None = None, column: str = "effect", *, every: bool = False
) -> np.ndarray:
    """[pair layer] of a unit: of pairs that are answered rightly both ways, or of every pair; NaN where not asked."""
    rows = table[(table["unit"] == unit) & (table["right"] | every)]
    rows = rows[rows["task"].isin(tasks)] if tasks else rows
    found = rows.pivot(index=["task", "pair"], columns="layer", values=column)
    return found.reindex(columns=range(1, table["layer"].max() + 1)).to_numpy(dtype=float)


def crossing(falling: np.ndarray) -> np.ndarray:
    """Where a curve [… layer] first falls below one half: the layer, from 1, with parts of layers by a straight line.

    After the last layer a patch finds no reader, so every curve ends at 0 there: one that stays up crosses then.
    """
    ended = np.concatenate([falling, np.zeros((*falling.shape[:-1], 1))], axis=-1)
    after = (ended < 0.5).argmax(axis=-1)
    before = np.maximum(after - 1, 0)
    high, low = (np.take_along_axis(ended, at[..., None], -1)[..., 0] for at in (before, after))
    part = np.where(after > 0, (high - 0.5) / np.where(high > low, high - low, 1.0), 1.0)
    return before + 1 + np.where(after > 0, part, 0.0)


def video(table: pd.DataFrame, tasks: Sequence[str] | None = None) -> np.ndarray:
    """Falls as the video's tokens are read for the last time."""
    return curves(table, "video", tasks)


def last(table: pd.DataFrame, tasks: Sequence[str] | None = None) -> np.ndarray:
    """Falls as the last token gets the answer."""
    return 1 - curves(table, "last", tasks)


def turn(table: pd.DataFrame, tasks: Sequence[str] | None = TIMED) -> np.ndarray:
    """Falls below one half where what tokens carry weighs more than the order that they stand in."""
    return (1 + curves(table, "order", tasks) - curves(table, "carried", tasks)) / 2


def where(*kinds: Callable[..., np.ndarray], tasks: Sequence[str] | None = None) -> Measure:
    """The layer where a curve crosses one half; of two: by how much the first crosses later than the second."""
    chosen = TIMED if tasks is None and turn in kinds else tasks

    def measure(table: pd.DataFrame) -> Interval:
        each = [kind(table, chosen) for kind in kinds]

        def crossed(mean: np.ndarray) -> np.ndarray:
            first, *rest = (crossing(part) for part in np.split(mean, len(each), axis=-1))
            return first - rest[0] if rest else first

        return bootstrap(np.concatenate(each, axis=-1), crossed)

    return measure


def at(
    unit: str,
    *layers: int,
    minus: str = "",
    tasks: Sequence[str] | None = None,
    of: str = "effect",
    every: bool = False,
) -> Measure:
    """The mean over some layers, all if none is named; of a unit, or of the difference of two."""

    def measure(table: pd.DataFrame) -> Interval:
        found = curves(table, unit, tasks, of, every=every)
        found = found - curves(table, minus, tasks, of, every=every) if minus else found
        chosen = found[:, [layer - 1 for layer in layers]] if layers else found
        return bootstrap_mean(chosen.mean(axis=1), within=ENDS[of])

    return measure


def straight(table: pd.DataFrame) -> Interval:
    """The video's effect with all between it and the last token held."""
    return bootstrap_mean(curves(table, "straight")[:, 0])


def right_within(table: pd.DataFrame) -> Interval:
    """Of pairs that the whole model answers rightly both ways, the share that it does within the pathway."""
    pairs = table[table["whole"]].groupby(["task", "pair"])["right_within"].first()
    return proportion(int(pairs.sum()), len(pairs))


def right_at_random(table: pd.DataFrame) -> Interval:
    """The same with as much cut at random: of each pair the mean over the draws."""
    rows = table[table["whole"] & (table["unit"] == "random")]
    return bootstrap_mean(rows.groupby(["task", "pair"])["kept"].mean().to_numpy(), within=(0, 1))


def half_within(table: pd.DataFrame) -> Interval:
    """By how much later the video's curve falls within the pathway than without, on the same pairs."""
    return where(curve_of("video"), curve_of("video in full"))(table)


def curve_of(unit: str) -> Callable[..., np.ndarray]:
    """`curves` of one unit."""
    return lambda table, tasks=None: curves(table, unit, tasks)


def beside(pathway: pd.DataFrame, whole: pd.DataFrame) -> pd.DataFrame:
    """The pathway's table with the whole model's rows of the same pairs: right where both are, and "video in full"."""
    key = ["task", "pair"]
    within = pathway[pathway["unit"] == "video"].groupby(key)["right"].first().rename("right_within")
    full = whole.groupby(key)["right"].first().rename("whole")
    rows = whole[whole["unit"] == "video"].assign(unit="video in full")
    table = pd.concat([pathway, rows]).drop(columns="right").merge(within, on=key).merge(full, on=key)
    return table.assign(right=table["right_within"] & table["whole"])
