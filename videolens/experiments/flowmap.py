"""The result of tracing flow: how far the answer's probability falls when a route is cut in a window of layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from videolens.errors import SelectionError, VideolensError, near
from videolens.experiments.asking import Skip
from videolens.experiments.statistics import Interval, bootstrap, bootstrap_curve, centre
from videolens.experiments.storing import read_result, write_result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLUMNS", "Curve", "FlowMap", "FlowSettings"]

COLUMNS = (
    "question",
    "task",
    "route",
    "layer",
    "p_base",
    "p_knockout",
    "change_percent",
    "answer",
    "answer_knockout",
    "correct",
    "logit_diff_base",
    "logit_diff_knockout",
)
"""`layer`: 0-based centre of the window. `p_*`: probability of `answer`, the token that the unblocked model ranks
first. `change_percent`: (p_knockout − p_base) / p_base × 100. `answer_knockout`: what the blocked model ranks first.
`correct`: whether `answer` is right; missing where that is not known. `logit_diff_*`: logit of the right option minus
the best of the others; NaN without options or a known answer."""

TABLE, SETTINGS = "flow.parquet", "flow.json"


@dataclass(frozen=True)
class FlowSettings:
    """How a flow map was made.

    Attributes:
        model: the name or directory the model was loaded from.
        n_layers: its depth; windows are centred on each layer.
        window: layers blocked together.
        samples: which questions were kept: "correct", "wrong" or "all".
        n_asked: questions asked, before any was left out.
        seed: of the bootstrap.
        revision: of the checkpoint, where it has one.
        dtype, device: what the model ran in and on.
        versions: of Python and the packages that matter.
        skipped: what was left out, and why.
        engine: "exact", or "full": one forward of the whole prompt per route and window.
        forwards: what a question cost, in plain forwards, on average.
        full_forwards: what it costs by the published procedure: one forward per route and window, and one unblocked.
        seconds: time that tracing took, the vision tower included.
        verified: largest |Δlogit| between the engine and plain forwards in a verified sample, in standard deviations
            of the logits; None where nothing was verified.
    """

    model: str
    n_layers: int
    window: int
    samples: str
    n_asked: int
    seed: int = 0
    revision: str | None = None
    dtype: str = ""
    device: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    skipped: tuple[Skip, ...] = ()
    engine: str = "full"
    forwards: float | None = None
    full_forwards: float | None = None
    seconds: float | None = None
    verified: float | None = None


@dataclass(frozen=True, eq=False)
class Curve:
    """Mean relative change (percent) per 0-based layer, with its 95 % bootstrap band, over n questions."""

    mean: Float[np.ndarray, " layer"]
    low: Float[np.ndarray, " layer"]
    high: Float[np.ndarray, " layer"]
    n: int


@dataclass(frozen=True, eq=False)
class FlowMap:
    """One row per question, route and layer, and how it was made.

    Attributes:
        table: the columns of `COLUMNS`; every question and route has all layers, in order.
        settings: how it was made.

    Raises:
        VideolensError: the table contradicts itself or the settings.
    """

    table: pd.DataFrame
    settings: FlowSettings

    def __post_init__(self) -> None:
        table, n_layers = self.table, self.settings.n_layers
        if tuple(table.columns) != COLUMNS:
            raise VideolensError(f"a flow map has the columns {list(COLUMNS)}, got {list(table.columns)}")
        if len(table) == 0:
            raise VideolensError("a flow map without a row: trace at least one question along one route")
        layers = table["layer"].to_numpy()
        if len(table) % n_layers or not np.array_equal(layers, np.tile(np.arange(n_layers), len(table) // n_layers)):
            raise VideolensError(
                f"every question and route needs the layers 0 … {n_layers - 1} in order: some are missing"
            )
        if table.duplicated(["task", "question", "route", "layer"]).any():
            raise VideolensError("a question and route are there twice: question ids must be unique within a task")
        p_base, p_knockout = table["p_base"].to_numpy(), table["p_knockout"].to_numpy()
        if not ((p_base > 0) & (p_base <= 1 + 1e-6) & (p_knockout >= 0) & (p_knockout <= 1 + 1e-6)).all():
            raise VideolensError("a probability lies outside 0 … 1: the logits were not finite, or p_base is 0")
        if not np.allclose(table["change_percent"], (p_knockout - p_base) / p_base * 100, atol=1e-6):
            raise VideolensError("change_percent is not (p_knockout − p_base) / p_base × 100")

    @property
    def routes(self) -> list[str]:
        """Routes, in the order in which they were traced."""
        return list(self.table["route"].unique())

    @property
    def tasks(self) -> list[str]:
        """Tasks, in the order in which they were asked."""
        return list(self.table["task"].unique())

    @property
    def n(self) -> int:
        """Questions in the map."""
        return len(self.table[["task", "question"]].drop_duplicates())

    def to_dataframe(self) -> pd.DataFrame:
        """A copy of the table."""
        return self.table.copy()

    def changes(self, route: str, *, task: str | None = None) -> Float[np.ndarray, "question layer"]:
        """Relative change in percent of every question at every layer. `task` None: all tasks.

        Raises:
            SelectionError: the route or the task is not in this map.
        """
        rows = self.table["route"] == self._known("route", route, self.routes)
        if task is not None:
            rows &= self.table["task"] == self._known("task", task, self.tasks)
        return self.table.loc[rows, "change_percent"].to_numpy(dtype=float).reshape(-1, self.settings.n_layers)

    def curve(self, route: str, *, task: str | None = None) -> Curve:
        """Mean change at every layer with its interval.

        Raises:
            SelectionError: the route or the task is not in this map.
            VideolensError: no question of that task was traced along that route.
        """
        changes = self.changes(route, task=task)
        mean, low, high = bootstrap_curve(changes, seed=self.settings.seed)
        return Curve(mean=mean, low=low, high=high, n=len(changes))

    def effect(self, route: str, *, task: str | None = None) -> Interval:
        """Mean change over all windows, in percent."""
        return bootstrap(self.changes(route, task=task), lambda curve: float(curve.mean()), seed=self.settings.seed)

    def peak(self, route: str, *, task: str | None = None) -> tuple[int, Interval]:
        """(layer, change in percent there) where the mean change is deepest.

        The layer is chosen once, on all questions; the interval is that of the change at this layer.
        """
        changes = self.changes(route, task=task)
        layer = int(changes.mean(axis=0).argmin()) if len(changes) else 0
        return layer, bootstrap(changes, lambda curve: float(curve[layer]), seed=self.settings.seed)

    def centre(self, route: str, *, task: str | None = None) -> Interval:
        """The 0-based layer the effect centres on: mean layer, weighted by how far the mean change falls below zero."""
        return bootstrap(self.changes(route, task=task), centre, seed=self.settings.seed)

    def summary(self) -> pd.DataFrame:
        """Per task ("all": every question) and route: effect, deepest window and centre, each with its 95 % interval.

        Columns: task, route, n, effect_percent, effect_low, effect_high, peak_layer, peak_percent, peak_low, peak_high,
        centre, centre_low, centre_high. Layers count from 0.
        """
        rows = []
        for task in [None, *self.tasks]:
            for route in self.routes:
                if len(self.changes(route, task=task)) == 0:
                    continue
                layer, peak = self.peak(route, task=task)
                row: dict[str, Any] = {"task": "all" if task is None else task, "route": route, "n": peak.n}
                row |= _columns("effect", self.effect(route, task=task), unit="_percent") | {"peak_layer": layer}
                row |= _columns("peak", peak, unit="_percent") | _columns("centre", self.centre(route, task=task))
                rows.append(row)
        return pd.DataFrame(rows)

    def skipped(self) -> pd.DataFrame:
        """What was left out: task, route ("all": the whole question), reason, and how many questions."""
        rows = [asdict(skip) | {"route": skip.route or "all"} for skip in self.settings.skipped]
        table = pd.DataFrame(rows, columns=["question", "task", "route", "reason"])
        return table.groupby(["task", "route", "reason"], sort=False).size().reset_index(name="questions")

    def figure(self, kind: str = "heat map", **options: Any) -> Figure:
        """Draw the map: "heat map", "routes", "cross-frame", "options" or "into the true option".

        Options are those of the drawing functions in `videolens.report.figures`: `tasks=`, and `base=`, a second map.
        """
        from videolens.report.figures import draw

        return draw(self, kind, **options)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write `flow.parquet` and `flow.json` into a directory.

        Raises:
            VideolensError: a flow map is there already, and `overwrite` is False.
        """
        files = {TABLE: self.table, SETTINGS: asdict(self.settings)}
        return write_result(path, files, what="a flow map", overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path) -> FlowMap:
        """Read what `save` wrote.

        Raises:
            VideolensError: the directory holds no flow map, or one that contradicts itself.
        """
        table, settings = read_result(path, TABLE, SETTINGS, what="flow map")
        settings["skipped"] = tuple(Skip(**skip) for skip in settings["skipped"])
        return cls(table, FlowSettings(**settings))

    def __repr__(self) -> str:
        made = self.settings
        return (
            f"FlowMap({made.model!r}, {self.n} of {made.n_asked} questions ({made.samples}), "
            f"{len(self.routes)} routes, {made.n_layers} layers, window {made.window})"
        )

    @staticmethod
    def _known(kind: str, name: str, known: Sequence[str]) -> str:
        if name not in known:
            raise SelectionError(near(name, known, kind=f"{kind} in this flow map"))
        return name


def _columns(name: str, interval: Interval, *, unit: str = "") -> dict[str, float]:
    return {f"{name}{unit}": interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
