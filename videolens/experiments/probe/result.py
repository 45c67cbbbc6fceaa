"""The result of probing: what was predicted for every question from every layer, and what chance would have said."""

from __future__ import annotations

from dataclasses import dataclass as plain_dataclass
from typing import Any, ClassVar, NamedTuple

import pandas as pd
from pydantic.dataclasses import dataclass

from videolens.errors import VideolensError
from videolens.experiments.common.conditions import CLEAN
from videolens.experiments.common.provenance import SETTINGS, Made
from videolens.experiments.common.result import Result
from videolens.experiments.common.statistics import Interval, bootstrap_mean, proportion


class ProbeRow(NamedTuple):
    """One question through one probe: a row of the table.

    Attributes:
        question, task: of the question.
        target: what is read.
        site: where: the selection whose positions were averaged.
        condition: "clean", or the name of an intervention.
        layer: 0-based: the residual that leaves it; −1: the one that enters layer 0.
        label, predicted: what is right, and what the probe says, which was fitted on other clips.
        shuffled, shuffled_predicted: the same with the labels given to the questions by chance.
    """

    question: str
    task: str
    target: str
    site: str
    condition: str
    layer: int
    label: str
    predicted: str
    shuffled: str
    shuffled_predicted: str


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class ProbeSettings(Made):
    """How probes were made.

    Attributes:
        n_layers: depth of the model.
        targets: name → where its labels come from.
        sites: selections whose positions were averaged.
        folds: into which clips were divided; each is predicted from the others.
        strength: inverse weight of the L2 penalty.
        interventions: what was done, by the name of the condition.
    """

    n_layers: int
    targets: dict[str, str]
    sites: tuple[str, ...]
    folds: int
    strength: float
    interventions: dict[str, str]


@plain_dataclass(frozen=True, eq=False)
class Probes(Result):
    """One row per question and probe; a probe is of one target, site, condition and layer.

    Attributes:
        table: one `ProbeRow` each.
        settings: how it was made.

    Raises:
        VideolensError: the table contradicts itself or the settings.
    """

    table: pd.DataFrame
    settings: ProbeSettings

    _called: ClassVar[str] = "set of probes"
    _files: ClassVar[dict[str, str]] = {"table": "probes.parquet", "settings": "probes.json"}
    _tables: ClassVar[dict[str, Any]] = {"table": ProbeRow}
    _route: ClassVar[str | None] = "target"

    def check(self) -> None:
        """Every probe has every layer, and no question is there twice."""
        layers = set(range(-1, self.settings.n_layers))
        for probe, found in self.table.groupby(["target", "site", "condition"], sort=False)["layer"]:
            if set(found) != layers:
                raise VideolensError(f"the probe {probe} needs the layers −1 … {max(layers)}, got {sorted(set(found))}")
        if self.table.duplicated(["target", "site", "condition", "layer", "task", "question"]).any():
            raise VideolensError("a question went through a probe twice: ids must be unique within a task")

    @property
    def targets(self) -> list[str]:
        """What was read, in order."""
        return list(self.table["target"].unique())

    @property
    def sites(self) -> list[str]:
        """Where."""
        return list(self.table["site"].unique())

    @property
    def conditions(self) -> list[str]:
        """ "clean", then the interventions."""
        return list(self.table["condition"].unique())

    def accuracy(self, target: str, site: str, layer: int, *, condition: str = CLEAN) -> Interval:
        """Share of questions whose label was predicted, with Wilson's 95 % interval.

        Raises:
            SelectionError: no such probe.
        """
        rows = self._of(target, site, condition, layer)
        return proportion(int((rows["label"] == rows["predicted"]).sum()), len(rows))

    def control(self, target: str, site: str, layer: int, *, condition: str = CLEAN) -> Interval:
        """The same of a probe for labels that were given to the questions by chance.

        Raises:
            SelectionError: no such probe.
        """
        rows = self._of(target, site, condition, layer)
        return proportion(int((rows["shuffled"] == rows["shuffled_predicted"]).sum()), len(rows))

    def selectivity(self, target: str, site: str, layer: int, *, condition: str = CLEAN) -> Interval:
        """Accuracy minus that of the control, with a 95 % bootstrap over questions. Compare with `chance`, too.

        Raises:
            SelectionError: no such probe.
        """
        rows = self._of(target, site, condition, layer)
        right = (rows["label"] == rows["predicted"]).to_numpy(dtype=float)
        by_chance = (rows["shuffled"] == rows["shuffled_predicted"]).to_numpy(dtype=float)
        return bootstrap_mean(right - by_chance, within=(-1.0, 1.0), seed=self.settings.seed)

    def chance(self, target: str) -> float:
        """The share of the commonest label: what a guess without looking gets.

        Raises:
            SelectionError: no such target.
        """
        rows = self.table[self.table["target"] == self._known("target", target, self.targets)]
        return float(rows["label"].value_counts(normalize=True).iloc[0])

    def curve(self, target: str, site: str, *, condition: str = CLEAN) -> pd.DataFrame:
        """A row per layer: layer, n, accuracy, low, high, control, control_low, control_high.

        Raises:
            SelectionError: no such probe.
        """
        rows = []
        for layer in range(-1, self.settings.n_layers):
            found, by_chance = (ask(target, site, layer, condition=condition) for ask in (self.accuracy, self.control))
            row = {"layer": layer, "n": found.n, "accuracy": found.value, "low": found.low, "high": found.high}
            rows.append(row | by_chance.columns("control"))
        return pd.DataFrame(rows)

    def summary(self) -> pd.DataFrame:
        """Of every target, site and condition the layer that is read best, which is chosen on the questions it is
        judged on: target, site, condition, n, chance, layer, accuracy, low, high, selectivity with its ends."""
        rows = []
        for target, site, condition in self._probes():
            curve = self.curve(target, site, condition=condition)
            best = curve.loc[curve["accuracy"].idxmax()]
            layer = int(best["layer"])
            row = {"target": target, "site": site, "condition": condition, "n": int(best["n"])}
            row |= {"chance": self.chance(target), "layer": layer}
            row |= {name: float(best[name]) for name in ("accuracy", "low", "high")}
            rows.append(row | self.selectivity(target, site, layer, condition=condition).columns("selectivity"))
        return pd.DataFrame(rows)

    def _probes(self) -> list[tuple[str, str, str]]:
        probes = self.table[["target", "site", "condition"]].drop_duplicates()
        return list(probes.itertuples(index=False, name=None))

    def _of(self, target: str, site: str, condition: str, layer: int) -> pd.DataFrame:
        rows = self.table
        for kind, name, known in (
            ("target", target, self.targets),
            ("site", site, self.sites),
            ("condition", condition, self.conditions),
        ):
            rows = rows[rows[kind] == self._known(kind, name, known)]
        self._known("layer", str(layer), [str(each) for each in range(-1, self.settings.n_layers)])
        rows = rows[rows["layer"] == layer]
        if not len(rows):
            raise VideolensError(
                f"{target!r} was not read off {site!r} under {condition!r}: {self.skipped().to_dict('records')}"
            )
        return rows

    def __repr__(self) -> str:
        made = self.settings
        return (
            f"Probes({made.model!r}, {', '.join(self.targets)} off {', '.join(self.sites)} in {made.n_layers} layers, "
            f"{self.n} questions, {made.folds} folds)"
        )
