"""The result of activation patching: how far each patch brings one run's answer to another's."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float64

from videolens.errors import SelectionError, VideolensError, near
from videolens.experiments.common.storing import read_result, settings_from, write_result
from videolens.experiments.patch_map.contrast import LEAST, METRICS, metric_column

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["CLIPS", "COLUMNS", "RUNS", "PatchMap", "PatchSettings"]

COLUMNS = (
    "pair",
    "site",
    "direction",
    "layer",
    "unit",
    "label",
    "n_positions",
    "logit_diff",
    "probability",
    "kl",
    "logit_diff_effect",
    "probability_effect",
    "kl_effect",
)
"""`layer`: 0-based (0 for the front end, which lies before it). `unit`: what was patched, `label`: the same for
figures. `logit_diff`: logit of the clean answer minus that of the other. `probability`: of the clean answer. `kl`:
KL(run patched from ‖ patched run), nats. `*_effect`: 0 as the run that is patched, 1 as the run patched from; NaN where
those two do not differ."""

RUNS = (
    "pair",
    "task",
    "clean_answer",
    "other_answer",
    "logit_diff_clean",
    "logit_diff_corrupted",
    "probability_clean",
    "probability_corrupted",
    "kl",
    "says_clean",
    "says_corrupted",
    "frames",
    "rows",
    "columns",
)
"""The two runs of each pair, unpatched. `clean_answer`, `other_answer`: the tokens whose logits are compared; `kl`:
KL(run patched from ‖ run that is patched); `says_*`: the token ranked first; `frames` × `rows` × `columns`: the grid of
video tokens."""

CLIPS = ("pair", "clip", "frame", "png")
"""Frames as small pictures: `clip` is "clean" or "corrupted"."""

DIRECTIONS = {"denoise": ("corrupted", "clean"), "noise": ("clean", "corrupted")}
"""Direction → (the run that is patched, the run that it is patched from)."""

TABLE, RUN_TABLE, CLIP_TABLE, SETTINGS = "patches.parquet", "runs.parquet", "clips.parquet", "patches.json"


@dataclass(frozen=True)
class PatchSettings:
    """How a patch map was made.

    Attributes:
        model: the name or directory the model was loaded from.
        n_layers: its depth.
        layers: the 0-based layers that were patched.
        over: "frame", "role", "token", "patch", "head", or "selections".
        metric: what figures show unless told otherwise.
        positions: the selection that the map keeps to; None: everything.
        engine: how patched runs were computed.
        revision: of the checkpoint, where it has one.
        dtype, device: what the model ran in and on.
        versions: of Python and the packages that matter.
        forwards, full_forwards: cost of a pair in plain forwards, this way and one by one; the run that is patched
            from not counted.
        verified: largest difference to plain forwards found, in standard deviations of the logits.
    """

    model: str
    n_layers: int
    layers: tuple[int, ...]
    over: str
    metric: str
    positions: str | None = None
    engine: str = "exact"
    revision: str | None = None
    dtype: str = ""
    device: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    forwards: float | None = None
    full_forwards: int | None = None
    verified: float | None = None


@dataclass(frozen=True, eq=False)
class PatchMap:
    """One row per pair, layer and unit; the two unpatched runs of every pair; and how it was made.

    Attributes:
        table: the columns of `COLUMNS`; every pair has all layers, and every layer all units, in order.
        runs: the columns of `RUNS`, one row per pair.
        clips: the columns of `CLIPS`; empty where prompts came without their video.
        settings: how it was made.

    Raises:
        VideolensError: the tables contradict themselves, each other or the settings.
    """

    table: pd.DataFrame
    runs: pd.DataFrame
    clips: pd.DataFrame
    settings: PatchSettings

    def __post_init__(self) -> None:
        for name, table, columns in (("table", self.table, COLUMNS), ("runs", self.runs, RUNS)):
            if tuple(table.columns) != columns:
                raise VideolensError(f"a patch map's {name} has the columns {list(columns)}, got {list(table.columns)}")
            if len(table) == 0:
                raise VideolensError(f"a patch map's {name} has no row: patch at least one unit of one pair")
        if tuple(self.clips.columns) != CLIPS:
            raise VideolensError(f"a patch map's clips have the columns {list(CLIPS)}, got {list(self.clips.columns)}")
        pairs, units, layers = list(self.runs["pair"]), self.units, list(self.settings.layers)
        places = [(pair, layer, unit) for pair in pairs for layer in layers for unit in units]
        if len(set(pairs)) != len(pairs):
            raise VideolensError("a pair is there twice: give every question its own id")
        if list(self.table[["pair", "layer", "unit"]].itertuples(index=False, name=None)) != places:
            raise VideolensError(
                f"every one of {len(pairs)} pairs needs the layers {layers} and in each the {len(units)} units in "
                f"order, {len(places)} rows; got {len(self.table)}"
            )
        if (
            self.direction not in DIRECTIONS
            or self.table["direction"].nunique() > 1
            or self.table["site"].nunique() > 1
        ):
            raise VideolensError(f"a patch map is of one site in one direction, {list(DIRECTIONS)}")
        metric_column(self.settings.metric)
        if not self.table["probability"].between(0, 1 + 1e-6).all() or not (self.table["kl"] >= 0).all():
            raise VideolensError("a probability lies outside 0 … 1, or a KL below 0: the logits were not finite")
        self._check_effects()

    def _check_effects(self) -> None:
        for column in METRICS.values():
            base, source = (self._bases(column, which).to_numpy() for which in DIRECTIONS[self.direction])
            scale = np.where(np.abs(source - base) < LEAST[column], np.nan, source - base)
            per_pair = self.table[column].to_numpy().reshape(len(self.runs), -1)
            expected = (per_pair - base[:, None]) / scale[:, None]
            if not np.allclose(self.table[f"{column}_effect"], expected.ravel(), rtol=1e-6, atol=1e-6, equal_nan=True):
                raise VideolensError(f"{column}_effect is not (patched − base) / (source − base)")

    def _bases(self, column: str, which: str) -> pd.Series:
        """A metric of one of the two unpatched runs, per pair."""
        if column != "kl":
            return self.runs[f"{column}_{which}"]
        return self.runs["kl"] if which == DIRECTIONS[self.direction][0] else self.runs["kl"] * 0.0

    @property
    def site(self) -> str:
        """What was patched."""
        return str(self.table["site"].iloc[0])

    @property
    def direction(self) -> str:
        """ "denoise": clean activations into the corrupted run; "noise": the other way."""
        return str(self.table["direction"].iloc[0])

    @property
    def units(self) -> list[str]:
        """What was patched one after the other, in order."""
        return list(self.table["unit"].unique())

    @property
    def labels(self) -> list[str]:
        """The units as figures name them."""
        return list(self.table.drop_duplicates("unit")["label"])

    @property
    def pairs(self) -> list[str]:
        """The pairs by name, in order."""
        return list(self.runs["pair"])

    @property
    def n(self) -> int:
        """Pairs in the map."""
        return len(self.runs)

    def to_dataframe(self) -> pd.DataFrame:
        """A copy of the table."""
        return self.table.copy()

    def effects(self, metric: str | None = None, *, pair: str | None = None) -> Float64[np.ndarray, "layer unit"]:
        """Normalised effects: of one pair, or the mean over all pairs where they are defined.

        Args:
            metric: "logit difference", "probability" or "kl"; None: the map's own.
            pair: which pair; None: all.

        Raises:
            SelectionError: no such pair.
            VideolensError: no such metric, or the two unpatched runs do not differ in it.
        """
        column = metric_column(metric or self.settings.metric)
        if pair is not None and pair not in self.pairs:
            raise SelectionError(near(pair, self.pairs, kind="pair in this patch map"))
        rows = self.table if pair is None else self.table[self.table["pair"] == pair]
        shape = (-1, len(self.settings.layers), len(self.units))
        effects = rows[f"{column}_effect"].to_numpy(dtype=float).reshape(shape)
        defined = effects[~np.isnan(effects).any(axis=(1, 2))]
        if len(defined) == 0:
            raise VideolensError(
                f"the clean and the corrupted run do not differ in {metric or self.settings.metric}, so no patch can "
                "have an effect on it: choose another metric or another pair"
            )
        return defined.mean(axis=0)

    def figure(self, metric: str | None = None, **options: Any) -> Figure:
        """Draw the map; frames stand beneath their columns.

        Options are those of `videolens.experiments.patch_map.figure.draw`: `pair=` one of several, `layers=` some.
        """
        from videolens.experiments.patch_map.figure import draw

        return draw(self, metric, **options)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write `patches.parquet`, `runs.parquet`, `clips.parquet` and `patches.json` into a directory.

        Raises:
            VideolensError: a patch map is there already, and `overwrite` is False.
        """
        files = {TABLE: self.table, RUN_TABLE: self.runs, CLIP_TABLE: self.clips, SETTINGS: asdict(self.settings)}
        return write_result(path, files, what="a patch map", overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path) -> PatchMap:
        """Read what `save` wrote.

        Raises:
            VideolensError: the directory holds no patch map, or one that contradicts itself.
        """
        table, runs, clips, settings = read_result(path, TABLE, RUN_TABLE, CLIP_TABLE, SETTINGS, what="patch map")
        made = settings_from(PatchSettings, settings, Path(path) / SETTINGS, what="patch map", tuples=("layers",))
        return cls(table, runs, clips, made)

    def __repr__(self) -> str:
        made = self.settings
        return (
            f"PatchMap({made.model!r}, {self.direction} {self.site} in {len(made.layers)} layers, "
            f"{len(self.units)} × {made.over}, {self.n} {'pair' if self.n == 1 else 'pairs'})"
        )
