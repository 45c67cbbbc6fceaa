"""Questions in groups, by whether cutting a route lowers or raises the probability of the answer that is followed.

Map the Flow, figure 10: among failed samples, attention between frames can hold the wrong answer up, or hold it down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from videolens.errors import SelectionError, VideolensError, near
from videolens.experiments.common.result import Drawn
from videolens.interventions.knockout import route_name

GROUPS = {
    "falls": "cutting lowers its probability",
    "rises": "cutting raises its probability",
    "unchanged": "cutting changes nothing",
    "not traced": "the route was not traced for it",
}
"""Every question of the map is in one of these groups, and in no other."""

SIGNS = ("mean", "peak")
"""Whose sign decides: the mean of a question's changes over all knockouts of the route, or the one furthest from 0."""


@dataclass(frozen=True, eq=False)
class FlowSplit(Drawn):
    """A flow map's questions in groups.

    Attributes:
        flow: the `FlowMap`.
        route: whose effect decides.
        by: "mean" or "peak".
        table: one row per question of the map, in its order: task, question, effect_percent (NaN: not traced), group.

    Raises:
        VideolensError: a question is missing or there twice, or in a group that its effect contradicts.
    """

    flow: Any
    route: str
    by: str
    table: pd.DataFrame

    _called: ClassVar[str] = "split flow map"
    _drawn_by: ClassVar[str] = "split_figure"

    def __post_init__(self) -> None:
        asked = self.flow.table[["task", "question"]].drop_duplicates()
        if list(map(tuple, self.table[["task", "question"]].to_numpy())) != list(map(tuple, asked.to_numpy())):
            raise VideolensError(f"a split holds every question of its map once: {len(self.table)} of {len(asked)}")
        if list(self.table["group"]) != [_group(effect) for effect in self.table["effect_percent"]]:
            raise VideolensError("a question is in a group that the sign of its effect contradicts")

    @property
    def counts(self) -> dict[str, int]:
        """Questions in each of `GROUPS`; together they are all of the map's."""
        return {group: int((self.table["group"] == group).sum()) for group in GROUPS}

    def group(self, name: str) -> Any:
        """The map of one group's questions; the others stand in its `skipped()`.

        Raises:
            SelectionError: no such group.
            VideolensError: the group is empty.
        """
        if name not in GROUPS:
            raise SelectionError(near(name, GROUPS, kind="group"))
        inside = self.table[self.table["group"] == name]
        if not len(inside):
            raise VideolensError(f"no question is in the group {name!r}: there are {self.counts}")
        chosen = list(zip(inside["task"], inside["question"], strict=True))
        return self.flow.of(chosen, reason=f"not in the group {name!r} of the split by {self.route}")

    def to_dataframe(self) -> pd.DataFrame:
        """A copy of the table."""
        return self.table.copy()

    def __repr__(self) -> str:
        return f"FlowSplit({self.flow!r}, by the {self.by} effect of {self.route!r}: {self.counts})"


def split_flow(flow: Any, route: str = "cross-frame", *, by: str = "mean") -> FlowSplit:
    """Split a map's questions by the sign of one route's effect on the followed answer's probability.

    1. A question's effect is the mean of its relative changes over all knockouts of the route, in percent
       (`by="mean"`), or the one of them that is furthest from zero (`by="peak"`).
    2. Below zero it *falls*, above zero it *rises*; exactly zero is *unchanged*, and questions without the route are
       *not traced*. No question is dropped.

    By construction the two groups differ along this route, if only by noise. What the split can teach is how they
    differ along other routes.

    Raises:
        SelectionError: the route is not in this map, or no such way to decide.
    """
    if by not in SIGNS:
        raise SelectionError(near(str(by), SIGNS, kind="way to decide a question's sign"))
    route = route_name(route)
    changes = flow.by_question(route)
    values = changes.to_numpy(dtype=float)
    peaks = values[np.arange(len(values)), np.abs(values).argmax(axis=1)]
    effects = pd.Series(values.mean(axis=1) if by == "mean" else peaks, index=changes.index, dtype=float)
    asked = flow.table[["task", "question"]].drop_duplicates().reset_index(drop=True)
    table = asked.assign(effect_percent=effects.reindex(pd.MultiIndex.from_frame(asked)).to_numpy())
    table["group"] = [_group(effect) for effect in table["effect_percent"]]
    return FlowSplit(flow=flow, route=route, by=by, table=table)


def _group(effect: float) -> str:
    if np.isnan(effect):
        return "not traced"
    return "unchanged" if effect == 0 else "falls" if effect < 0 else "rises"
