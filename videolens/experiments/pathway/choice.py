"""Choosing a pathway on questions that it will not be judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from videolens.experiments.flow.experiment import trace_flow
from videolens.experiments.flow.result import FlowMap
from videolens.experiments.pathway.experiment import evaluate_pathway
from videolens.experiments.pathway.result import PathwayAccuracy
from videolens.interventions.pathway import CLOSED_ROUTES, Pathway
from videolens.model.transformer import HookedVideoTransformer
from videolens.question import Question


@dataclass(frozen=True, eq=False)
class Choice:
    """A pathway, and how it was chosen.

    Attributes:
        pathway: what was chosen.
        flow: the flow map that it was chosen by.
        validated: accuracy along it on the same questions.
    """

    pathway: Pathway
    flow: FlowMap
    validated: PathwayAccuracy


def choose_pathway(
    model: HookedVideoTransformer,
    questions: Sequence[Question],
    *,
    threshold: float | int = -5,
    measure: str = "logit difference, relative",
    each_task: bool = True,
    task: str | None = None,
    bin: int | None = None,
    window: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Choice:
    """Choose a closed pathway by the paper's rule: a bin of layers is open if cutting it costs more than 5 %.

    1. Trace flow between the parts of the prompt (`CLOSED_ROUTES`), on the questions answered rightly.
    2. `Pathway.from_flow`.
    3. Accuracy along it, on the same questions. Judge it by others: `evaluate_pathway` on a test split.

    The paper's own choice is `measure="answer", task="action antonym"`. The defaults differ in two ways: the logit
    difference does not saturate as a probability near 1 does, and what any single task needs is opened.

    Args:
        model: the model.
        questions: multiple-choice questions of a validation split.
        threshold: as in `Pathway.from_flow`, and so are the next four.
        measure: what a change is measured by.
        each_task: open what any one task needs.
        task: choose by this task alone.
        bin: layers that are opened together.
        window: as in `trace_flow`.
        seed: of the bootstrap.
        progress: show bars.

    Raises:
        VideolensError: as `trace_flow` and `evaluate_pathway` raise.
    """
    # 1.
    flow = trace_flow(model, questions, routes=CLOSED_ROUTES, window=window, seed=seed, progress=progress)
    # 2.
    pathway = Pathway.from_flow(flow, threshold=threshold, bin=bin, task=task, each_task=each_task, measure=measure)
    # 3.
    validated = evaluate_pathway(model, questions, pathway, random=(), seed=seed, progress=progress)
    return Choice(pathway, flow, validated)
