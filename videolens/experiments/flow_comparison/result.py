"""The result of a comparison of flow maps: one route's curve in every model, and how far apart each two are."""

from __future__ import annotations

from dataclasses import dataclass as plain_dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
from pydantic.dataclasses import dataclass

from videolens.errors import VideolensError
from videolens.experiments.common.provenance import SETTINGS, Made
from videolens.experiments.common.result import Result
from videolens.experiments.common.statistics import Interval


class CurveRow(NamedTuple):
    """A window of layers in one model.

    Attributes:
        model: what it is called.
        layer: 0-based layer at the window's centre.
        depth: of that layer, (layer + ½) / n_layers: 0 where the decoder begins, 1 where it ends.
        mean, low, high: the mean change there with its 95 % interval, in the unit of the measure.
    """

    model: str
    layer: int
    depth: float
    mean: float
    low: float
    high: float


class ModelRow(NamedTuple):
    """One model along the route. Intervals are 95 % bootstraps over questions.

    Attributes:
        model: what it is called.
        n: questions.
        effect, effect_low, effect_high: mean change over all windows.
        centre, centre_low, centre_high: the depth, 0 to 1, on which the effect centres; NaN where nothing falls.
    """

    model: str
    n: int
    effect: float
    effect_low: float
    effect_high: float
    centre: float
    centre_low: float
    centre_high: float


class DistanceRow(NamedTuple):
    """Two models on the questions that both were asked: the first's number minus the second's.

    Attributes:
        first, second: the models, by their places in `models`, from 0.
        n: questions that both were asked.
        effect, effect_low, effect_high: difference of the mean changes over all windows.
        centre, centre_low, centre_high: difference of the depths on which the effects centre.
        shape, shape_low, shape_high: which share of the effect lies at other depths, 0 to 1: half of the summed
            difference between the two falls, each made to sum to 1. NaN where one of them never falls.
        shape_by_chance: the shape distance below which 95 % lie when every question's two curves are given to the two
            models by chance: what noise alone makes of two effects of one shape.
    """

    first: int
    second: int
    n: int
    effect: float
    effect_low: float
    effect_high: float
    centre: float
    centre_low: float
    centre_high: float
    shape: float
    shape_low: float
    shape_high: float
    shape_by_chance: float


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Compared(Made):
    """One model of a comparison, and what it was compared in. `model` is what it is called.

    Attributes:
        checkpoint: the name or directory that its map was made from.
        n_layers: its depth.
        window: layers that were blocked together.
        route: what was cut.
        task: of the questions; None: all.
        measure, unit: of the change.
    """

    checkpoint: str
    n_layers: int
    window: int
    route: str
    task: str | None
    measure: str
    unit: str


@plain_dataclass(frozen=True, eq=False)
class FlowComparison(Result):
    """One route in several models, over depth.

    Attributes:
        table: one `CurveRow` per model and window.
        models: one `ModelRow` each, in order.
        distances: one `DistanceRow` per two models.
        settings: one entry per model.

    Raises:
        VideolensError: the tables contradict each other or the settings.
    """

    table: pd.DataFrame
    models: pd.DataFrame
    distances: pd.DataFrame
    settings: tuple[Compared, ...]

    _called: ClassVar[str] = "comparison of flow maps"
    _files: ClassVar[dict[str, str]] = {
        "table": "curves.parquet",
        "models": "models.parquet",
        "distances": "distances.parquet",
        "settings": "comparison.json",
    }
    _tables: ClassVar[dict[str, Any]] = {"table": CurveRow, "models": ModelRow, "distances": DistanceRow}

    def check(self) -> None:
        """Every model has every layer, and every two of them a distance."""
        expected = [(each.model, layer) for each in self.settings for layer in range(each.n_layers)]
        if list(self.table[["model", "layer"]].itertuples(index=False, name=None)) != expected:
            raise VideolensError(f"the curves are not those of every layer of the models {self.names}")
        if self.names != list(self.models["model"]):
            raise VideolensError(
                f"settings are of the models {self.names}, the table is of {list(self.models['model'])}"
            )
        pairs = list(self.distances[["first", "second"]].itertuples(index=False, name=None))
        if pairs != [(a, b) for a in range(len(self.names)) for b in range(a + 1, len(self.names))]:
            raise VideolensError(
                f"{len(self.names)} models need a distance for every two of them, got those of {pairs}"
            )
        if len({(each.route, each.task, each.measure) for each in self.settings}) != 1:
            raise VideolensError("a comparison is of one route, one task and one measure")

    @property
    def names(self) -> list[str]:
        """What the models are called, in order."""
        return [each.model for each in self.settings]

    @property
    def n(self) -> int:
        """Questions of the model that was asked most."""
        return int(self.models["n"].max())

    @property
    def tasks(self) -> list[str]:
        """The task of the questions; none if they are of all tasks."""
        return [each for each in {self.settings[0].task} if each is not None]

    def distance(self, first: str, second: str, kind: str = "shape") -> Interval:
        """How far two models are apart: "effect", "centre" or "shape" (`DistanceRow`), the first minus the second.

        Raises:
            SelectionError: there is no such model, or kind.
        """
        self._known("kind of distance", kind, ("effect", "centre", "shape"))
        at = [self.names.index(self._known("model", name, self.names)) for name in (first, second)]
        if at[0] == at[1]:
            raise VideolensError(f"{first!r} twice: name two models of {self.names}")
        row = self.distances.set_index(["first", "second"]).loc[(min(at), max(at))]
        value, low, high = (float(row[name]) for name in (kind, f"{kind}_low", f"{kind}_high"))
        if at[0] > at[1] and kind != "shape":
            value, low, high = -value, -high, -low
        return Interval(value, low, high, int(row["n"]))

    def __repr__(self) -> str:
        one = self.settings[0]
        apart = self.distances["shape"].max()
        most = "" if np.isnan(apart) else f", shapes up to {100 * apart:.0f} % apart"
        return f"FlowComparison({one.route!r} in {len(self.names)} models, {one.measure}{most})"
