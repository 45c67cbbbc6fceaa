"""What a flow map's table holds, how it was made, and what it must not contradict."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from pydantic.dataclasses import dataclass

from videolens.errors import VideolensError
from videolens.experiments.common.provenance import SETTINGS, Made
from videolens.interventions.layer_sets import cut_layers, cut_words


class FlowRow(NamedTuple):
    """One knockout of one question: a row of a flow map's table.

    Attributes:
        question, task: of the question.
        route: what was cut.
        layer: 0-based; it names the knockout: the centre of its window, or what `cut_layers` says of other styles.
        p_base, p_knockout: probability of `answer`, unblocked and blocked.
        change_percent: (p_knockout − p_base) / p_base × 100.
        answer: the token that the unblocked model ranks first.
        answer_knockout: the token that the blocked model ranks first.
        correct, correct_knockout: whether what is ranked first, unblocked and blocked, is right; missing where that is
            not known.
        p_correct_base, p_correct_knockout: probability of the right option's token; NaN where that is not known.
        logit_diff_base, logit_diff_knockout: logit of the right option minus the best of the others (above 0: right
            among the options); NaN without options or a known answer.
    """

    question: str
    task: str
    route: str
    layer: int
    p_base: float
    p_knockout: float
    change_percent: float
    answer: str
    answer_knockout: str
    correct: bool | None
    correct_knockout: bool | None
    p_correct_base: float
    p_correct_knockout: float
    logit_diff_base: float
    logit_diff_knockout: float


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class FlowSettings(Made):
    """How a flow map was made.

    Attributes:
        n_layers: depth of the model.
        window: layers blocked together; None for styles that have no window.
        samples: which questions were kept: "correct", "wrong" or "all".
        engine: "exact", or "full": one forward of the whole prompt per route and window.
        style: which layers are cut together, one of `STYLES`.
        own_choice: "true option" is the option that the model ranks first, because no answer was given.
    """

    n_layers: int
    window: int | None
    samples: str
    engine: str = "full"
    style: str = "centre"
    own_choice: bool = False

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
