"""What a flow map's table holds, how it was made, and what it must not contradict."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from videolens.errors import VideolensError
from videolens.experiments.common.asking import Skip
from videolens.interventions.layer_sets import cut_layers, cut_words

__all__ = ["COLUMNS", "FlowSettings", "check_table"]

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
    "correct_knockout",
    "p_correct_base",
    "p_correct_knockout",
    "logit_diff_base",
    "logit_diff_knockout",
)
"""`layer`: 0-based; it names the knockout: the centre of its window, or what `cut_layers` says of other styles.
`p_base`, `p_knockout`: probability of `answer`, the token that the unblocked model ranks first. `change_percent`:
(p_knockout − p_base) / p_base × 100. `answer_knockout`: what the blocked model ranks first. `correct`,
`correct_knockout`: whether what is ranked first, unblocked and blocked, is right; missing where that is not known.
`p_correct_*`: probability of the right option's token; NaN where that is not known. `logit_diff_*`: logit of the right
option minus the best of the others (above 0: right among the options); NaN without options or a known answer."""


@dataclass(frozen=True)
class FlowSettings:
    """How a flow map was made.

    Attributes:
        model: the name or directory the model was loaded from.
        n_layers: its depth.
        window: layers blocked together; None for styles that have no window.
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
        style: which layers are cut together, one of `STYLES`.
    """

    model: str
    n_layers: int
    window: int | None
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
    style: str = "centre"

    @property
    def cuts(self) -> dict[int, tuple[int, ...]]:
        """The 0-based layers that each knockout of a route cuts, by what stands in the column `layer`."""
        return cut_layers(self.style, self.window, self.n_layers)

    @property
    def cut_words(self) -> str:
        """What one point of a curve stands for, in words."""
        return cut_words(self.style, self.window, self.n_layers)


def check_table(table: pd.DataFrame, settings: FlowSettings) -> None:
    """Raises:
    VideolensError: the table contradicts itself or the settings.
    """
    if tuple(table.columns) != COLUMNS:
        missing = [name for name in COLUMNS if name not in table.columns]
        raise VideolensError(
            f"a flow map has the columns {list(COLUMNS)}, got {list(table.columns)}"
            + (f": {missing} are missing; a map of an older version has to be traced anew" if missing else "")
        )
    if len(table) == 0:
        raise VideolensError("a flow map without a row: trace at least one question along one route")
    places, layers = list(settings.cuts), table["layer"].to_numpy()
    if len(table) % len(places) or not np.array_equal(layers, np.tile(places, len(table) // len(places))):
        expected = f"the layers 0 … {settings.n_layers - 1}" if len(places) == settings.n_layers else f"layers {places}"
        raise VideolensError(f"every question and route needs {expected} in order: some are missing")
    if table.duplicated(["task", "question", "route", "layer"]).any():
        raise VideolensError("a question and route are there twice: question ids must be unique within a task")
    p_base, p_knockout = table["p_base"].to_numpy(), table["p_knockout"].to_numpy()
    right = [table[name].to_numpy(dtype=float) for name in ("p_correct_base", "p_correct_knockout")]
    if not ((p_base > 0) & (p_base <= 1 + 1e-6) & (p_knockout >= 0) & (p_knockout <= 1 + 1e-6)).all() or not all(
        (np.isnan(p) | (p >= 0) & (p <= 1 + 1e-6)).all() for p in right
    ):
        raise VideolensError("a probability lies outside 0 … 1: the logits were not finite, or p_base is 0")
    if not np.allclose(table["change_percent"], (p_knockout - p_base) / p_base * 100, atol=1e-6):
        raise VideolensError("change_percent is not (p_knockout − p_base) / p_base × 100")
