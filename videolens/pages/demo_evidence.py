"""The demonstration's looks beyond knockouts of one model: what pathways bear, and what is there without hints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from videolens.drawing.html import paragraph
from videolens.experiments.common.words import interval_text
from videolens.experiments.flow.experiment import trace_flow
from videolens.experiments.flow_comparison.experiment import compare_flows
from videolens.experiments.flow_comparison.result import FlowComparison
from videolens.experiments.flow_comparison.section import section as comparison_section
from videolens.experiments.stress.experiment import stress
from videolens.experiments.stress.result import Stress
from videolens.experiments.stress.section import section as stress_section
from videolens.interventions.cut_routes import CutRoutes
from videolens.model.loading import load
from videolens.model.transformer import HookedVideoTransformer
from videolens.question import Question

STRESSED = 2
"""Questions of each task that are disturbed."""

DISTURBED = ("noise", "distractor", "repeated frames", "slow motion")
"""How: two that spoil the pictures, two that spoil their order."""

UNHINTED = {"shapes": "shapes-nohint"}
"""Model → one that learnt the same tasks and was not told by which layer to be ready."""

COMPARED_IN = 3
"""Questions of each task in which the two are compared."""

ROUTE, WINDOW = "cross-frame", 3


@dataclass(frozen=True, eq=False)
class Evidence:
    """What stands beside the knockouts.

    Attributes:
        stress: the model and its pathways under a few disturbances.
        unhinted: the model beside one that learnt without hints; None where there is no such model.
    """

    stress: Stress
    unhinted: FlowComparison | None


def evidence(
    name: str,
    model: HookedVideoTransformer,
    pathways: Mapping[str, CutRoutes],
    questions: Sequence[Question],
    *,
    seed: int,
    progress: bool,
    **how: Any,
) -> Evidence:
    """A short stress test of some pathways, and of a bundled model the comparison with one that had no hints.

    Args:
        name: the model's, as it was loaded.
        model: the model.
        pathways: by name.
        questions: the first `STRESSED` of each task are disturbed, the first `COMPARED_IN` asked of both models.
        seed: of what is drawn.
        progress: show bars.
        how: `device`, `dtype`, …: how `load` loads the other model.
    """
    asked = first_of_each(questions, STRESSED)
    found = stress(model, pathways, asked, perturbations=DISTURBED, seed=seed, progress=progress)
    if (other := UNHINTED.get(name)) is None:
        return Evidence(found, None)
    return Evidence(found, unhinted((name, other), (model, load(other, **how)), questions, progress=progress))


def unhinted(
    names: tuple[str, str],
    models: tuple[HookedVideoTransformer, HookedVideoTransformer],
    questions: Sequence[Question],
    *,
    progress: bool,
) -> FlowComparison:
    """Attention between frames in a model that was told where to be ready and in one that was not.

    Both are asked in words, for as letters the second does not know all tasks.

    Args:
        names: of the models.
        models: told and not told.
        questions: as multiple choice; the first `COMPARED_IN` of each task are asked.
        progress: show bars.
    """
    asked = [question.open_ended() for question in first_of_each(questions, COMPARED_IN)]
    flows = {
        name: trace_flow(model, asked, routes=[ROUTE], window=WINDOW, samples="all", progress=progress)
        for name, model in zip(names, models, strict=True)
    }
    return compare_flows(flows, ROUTE)


def first_of_each(questions: Sequence[Question], n: int) -> list[Question]:
    """The first n questions of each task."""
    taken: dict[str, list[Question]] = {}
    for question in questions:
        taken.setdefault(question.task, []).append(question)
    return [question for some in taken.values() for question in some[:n]]


def stressed_section(found: Stress) -> Markup:
    """The figure and the table, and what so few questions cannot say."""
    few = (
        f"{found.n} questions and {len(found.perturbations)} disturbances are a look: a pathway may lose much more, or "
        "nothing, on others, as the intervals say. docs/stress.md has sixteen of them, attacks among them, on more "
        "questions."
    )
    return stress_section(found) + paragraph(few)


def unhinted_section(found: FlowComparison) -> Markup:
    """What the comparison can say about where routes come from, and the figure."""
    told, free = found.names
    lead = (
        f"While {told} was trained, heads that were thrown away later said by which layer each step of the answer "
        f"should be ready. {free} learnt the same tasks without them. What it has came without hints, but for its "
        f"projector, which was {told}'s, and what {told} alone has may have come by its hints. The maps above are of "
        f"{told}."
    )
    return paragraph(lead) + comparison_section(found) + paragraph(_where(found))


def _where(found: FlowComparison) -> str:
    """The centres in words, and what is not shown here."""
    places = []
    for row, made in zip(found.models.itertuples(), found.settings, strict=True):
        if np.isnan([row.centre, row.centre_low, row.centre_high]).any():
            places.append(f"in {row.model} no place can be told")
            continue
        at, low, high = (made.n_layers * each + 0.5 for each in (row.centre, row.centre_low, row.centre_high))
        places.append(f"in {row.model} on layer {interval_text(at, low, high, sign='')} of {made.n_layers}")
    return (
        f"Asked in words, n = {found.n}, the loss from cutting {ROUTE} centres {' and '.join(places)}. The two differ "
        "in depth, seed and order of lessons as well, and each is one run: this is no rule. When in training the "
        "routes appear, checkpoint by checkpoint, and where the two models disagree: docs/bundled.md."
    )
