"""The result of activation patching: how far each patch brings one run's answer to another's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Float64

from videolens.errors import VideolensError
from videolens.experiments.common.result import Result
from videolens.experiments.patch_map.contrast import LEAST, METRICS, metric_column
from videolens.experiments.patch_map.table import DIRECTIONS, ClipRow, PatchRow, PatchSettings, RunRow


@dataclass(frozen=True, eq=False)
class PatchMap(Result):
    """One row per pair, layer and unit; the two unpatched runs of every pair; and how it was made.

    Attributes:
        table: one `PatchRow` each; every pair has all layers, and every layer all units, in order.
        runs: one `RunRow` per pair.
        clips: one `ClipRow` per frame; empty where prompts came without their video.
        settings: how it was made.

    Raises:
        VideolensError: the tables contradict themselves, each other or the settings.
    """

    table: pd.DataFrame
    runs: pd.DataFrame
    clips: pd.DataFrame
    settings: PatchSettings

    _called: ClassVar[str] = "patch map"
    _files: ClassVar[dict[str, str]] = {
        "table": "patches.parquet",
        "runs": "runs.parquet",
        "clips": "clips.parquet",
        "settings": "patches.json",
    }
    _tables: ClassVar[dict[str, Any]] = {"table": PatchRow, "runs": RunRow, "clips": ClipRow}

    def check(self) -> None:
        """Every pair has every layer and unit, and effects are what they are computed from."""
        pairs, units, layers = self.pairs, self.units, list(self.settings.layers)
        places = [(pair, layer, unit) for pair in pairs for layer in layers for unit in units]
        if len(set(pairs)) != len(pairs):
            raise VideolensError("a pair is there twice: give every question its own id")
        if list(self.table[["pair", "layer", "unit"]].itertuples(index=False, name=None)) != places:
            raise VideolensError(
                f"every one of {len(pairs)} pairs needs the layers {layers} and in each the {len(units)} units in "
                f"order, {len(places)} rows; got {len(self.table)}"
            )
        one = all(self.table[name].nunique() == 1 for name in ("direction", "site"))
        if not one or self.direction not in DIRECTIONS:
            raise VideolensError(f"a patch map is of one site in one direction, {list(DIRECTIONS)}")
        metric_column(self.settings.metric)
        if not self.table["probability"].between(0, 1 + 1e-6).all() or not (self.table["kl"] >= 0).all():
            raise VideolensError("a probability lies outside 0 … 1, or a KL below 0: the logits were not finite")
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
    def tasks(self) -> list[str]:
        """Tasks of the pairs' questions, in the order in which they were asked."""
        return list(self.runs["task"].unique())

    @property
    def n(self) -> int:
        """Pairs in the map."""
        return len(self.runs)

    def effects(self, metric: str | None = None, *, pair: str | None = None) -> Float64[np.ndarray, "layer unit"]:
        """Normalised effects: of one pair, or the mean over all pairs where they are defined.

        Args:
            metric: "logit difference", "probability" or "kl"; None: the map's own.
            pair: which pair; None: all.

        Raises:
            SelectionError: no such pair.
            VideolensError: no such metric, or the two unpatched runs do not differ in it.
        """
        column, rows = metric_column(metric or self.settings.metric), self.table
        if pair is not None:
            rows = rows[rows["pair"] == self._known("pair", pair, self.pairs)]
        shape = (-1, len(self.settings.layers), len(self.units))
        effects = rows[f"{column}_effect"].to_numpy(dtype=float).reshape(shape)
        defined = effects[~np.isnan(effects).any(axis=(1, 2))]
        if len(defined) == 0:
            raise VideolensError(
                f"the clean and the corrupted run do not differ in {metric or self.settings.metric}, so no patch can "
                "have an effect on it: choose another metric or another pair"
            )
        return defined.mean(axis=0)

    def noise_floor(self, metric: str | None = None, *, pair: str | None = None) -> float:
        """What rounding alone makes of an effect: 95 % of effects of noise lie within ± this.

        0 in float32. NaN where it was not measured: on metrics other than the map's own, and in older maps. Rounding of
        different pairs has nothing to do with each other, so that of their mean falls with the root of their number.
        """
        column, made = metric_column(metric or self.settings.metric), self.settings
        if made.dtype not in ("bfloat16", "float16"):
            return 0.0
        if made.noise is None or column != metric_column(made.metric):
            return float("nan")
        defined = self.table.groupby("pair")[f"{column}_effect"].apply(lambda effects: effects.notna().all())
        n = 1 if pair is not None else max(int(defined.sum()), 1)
        return 1.96 * made.noise / 100 / n**0.5

    def __repr__(self) -> str:
        made = self.settings
        return (
            f"PatchMap({made.model!r}, {self.direction} {self.site} in {len(made.layers)} layers, "
            f"{len(self.units)} × {made.over}, {self.n} {'pair' if self.n == 1 else 'pairs'})"
        )
