"""What flow maps cost: in forwards, planned, and in seconds, measured; by the exact way and by the published one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from videolens.drawing.html import render
from videolens.experiments.flow.experiment import trace_flow
from videolens.experiments.flow.result import FlowMap
from videolens.model.checkpoints.files import short_name
from videolens.model.transformer import HookedVideoTransformer
from videolens.question import Question


@dataclass(frozen=True)
class SideBySide:
    """The same maps by both ways, one after the other on the same machine.

    Attributes:
        model: whose maps.
        n: questions.
        cuts: knockouts, over all questions.
        exact_seconds, full_seconds: for all of them; the vision tower is not in it.
        apart: largest difference between the two ways in any probability that was measured.
        moved: largest change of a probability by any of the cuts, beside which `apart` is to be seen.
    """

    model: str
    n: int
    cuts: int
    exact_seconds: float
    full_seconds: float
    apart: float
    moved: float

    @property
    def times_as_long(self) -> float:
        """Seconds of the published way for one second of the exact one."""
        return self.full_seconds / max(self.exact_seconds, 1e-9)


def side_by_side(
    model: HookedVideoTransformer, questions: Sequence[Question], *, name: str, progress: bool = True
) -> SideBySide:
    """Map the same questions by both ways."""
    prompts = [model.prompt(question) for question in questions]
    exact = trace_flow(model, prompts, samples="all", engine="exact", progress=progress)
    full = trace_flow(model, prompts, samples="all", engine="full", progress=progress)
    cut, base = full.table["p_knockout"], full.table["p_base"]
    return SideBySide(
        model=name,
        n=len(questions),
        cuts=len(cut),
        exact_seconds=exact.settings.seconds or 0.0,
        full_seconds=full.settings.seconds or 0.0,
        apart=float((exact.table["p_knockout"] - cut).abs().max()),
        moved=float((cut - base).abs().max()),
    )


def cost_words(flow: FlowMap) -> str:
    """The cost of one question's map in a few words; nothing if the map does not know it."""
    made = flow.settings
    if made.forwards is None or made.full_forwards is None:
        return ""
    if made.engine == "full":
        return f"{_count(made.full_forwards)} forwards"
    return f"{made.forwards:.1f} forwards instead of {_count(made.full_forwards)}"


def cost_section(flows: Sequence[FlowMap], check: SideBySide | None = None) -> Markup:
    """What every map cost both ways, and how the two ways compared where both were run."""
    published, here = (Markup("forwards each,<br>{}").format(way) for way in ("published", "here"))
    head = ["model", "questions", published, here, "fewer", "seconds, all"]
    rows = []
    for flow in flows:
        made = flow.settings
        known = made.forwards is not None and made.full_forwards is not None and made.forwards > 0
        rows.append(
            [
                short_name(made.model),
                str(flow.n),
                _count(made.full_forwards),
                "–" if made.forwards is None else f"{made.forwards:.1f}",
                f"{(made.full_forwards or 0) / (made.forwards or 1):.1f} ×" if known else "–",
                "–" if made.seconds is None else f"{made.seconds:.0f}",
            ]
        )
    return render(__file__, "cost.html", head=head, rows=rows, check=check)


def _count(forwards: float | None) -> str:
    return "–" if forwards is None else f"{forwards:.0f}" if forwards == round(forwards) else f"{forwards:.1f}"
