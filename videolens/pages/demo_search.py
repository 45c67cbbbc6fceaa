"""The demonstration's last step: the smallest pathway that a short search finds, and what running it saves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from videolens.drawing.html import paragraph
from videolens.errors import VideolensError
from videolens.experiments.pathway.choice import Choice
from videolens.experiments.pathway.savings import Savings, measure_savings, savings_section
from videolens.experiments.search.experiment import find_pathway
from videolens.experiments.search.result import PathwaySearch
from videolens.experiments.search.section import section as search_section
from videolens.interventions.cut_routes import CutRoutes
from videolens.interventions.pathway import Pathway
from videolens.model.transformer import HookedVideoTransformer
from videolens.question import Question

ABOVE, RULE, FOUND = "chosen above", "the paper’s rule", "found"
"""Names of the pathways that are compared: that of the section before, by the rule as the paper has it, by search."""


@dataclass(frozen=True, eq=False)
class Smallest:
    """The smallest pathway.

    Attributes:
        search: what was found, beside the pathway that was chosen before and the paper's; None: nothing.
        why_not: why nothing was found.
        savings: of what was found, and of what was chosen before.
        pathways: those, by name.
    """

    search: PathwaySearch | None
    why_not: str
    savings: Savings
    pathways: Mapping[str, CutRoutes]


def smallest(
    model: HookedVideoTransformer,
    by: Sequence[Question],
    questions: Sequence[Question],
    timed: Sequence[Question],
    choice: Choice,
    *,
    seed: int,
    say: Callable[[str], None],
    progress: bool,
) -> Smallest:
    """Search, judge, and time what was found.

    Args:
        model: the model.
        by: validation questions, to search on.
        questions: to judge on.
        timed: to time.
        choice: the pathway that was chosen before, to stand beside.
        seed: of the bootstrap.
        say: called with a line of text if nothing is found.
        progress: show bars.
    """
    chosen = choice.pathway
    beside: dict[str, CutRoutes] = {ABOVE: chosen, RULE: Pathway.from_flow(choice.flow)}
    search, why_not = None, ""
    try:
        # one order and few questions: it is to take a minute; `python docs/numbers/search.py` takes its time
        search = find_pathway(
            model, by, questions, orders=["attribution"], compare=beside, draws=0, seed=seed, progress=progress
        )
    except VideolensError as error:  # of a model that mostly guesses no answers can be kept
        why_not = str(error)
        say(f"no pathway was searched for: {why_not}")
    run = {ABOVE: chosen} if search is None else {FOUND: search.pathway, ABOVE: chosen}
    return Smallest(search, why_not, measure_savings(model, [model.prompt(each) for each in timed], run), run)


def smallest_section(found: Smallest) -> Markup:
    """The front of what was found, and the table of what running it saves."""
    if found.search is None:
        return paragraph(f"No pathway was searched for: {found.why_not}.") + savings_section(found.savings)
    few = (
        f"This search had {found.search.settings.n_searched} questions, which are few: what it keeps may be theirs "
        "alone. docs/search.md has a search on 500, judged on 1,000 others."
    )
    return search_section(found.search) + paragraph(few) + savings_section(found.savings)
