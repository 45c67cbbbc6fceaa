"""The parts of a report that prune to a pathway, watch the answer form, and read the video tokens."""

from __future__ import annotations

from dataclasses import dataclass

from videolens.drawing.html import embed, escape, paragraph, table
from videolens.drawing.view import View
from videolens.experiments.answer_trace.result import AnswerTrace
from videolens.experiments.common.statistics import Interval
from videolens.experiments.logit_lens.result import LogitLens
from videolens.experiments.pathway.choice import Choice
from videolens.experiments.pathway.result import PathwayAccuracy

__all__ = ["Pruned", "answer_section", "lens_section", "pathway_section"]


@dataclass(frozen=True, eq=False)
class Pruned:
    """A model along one pathway.

    Attributes:
        choice: the pathway, and the questions it was chosen by.
        accuracy: along it, on other questions.
        view: what it keeps and removes in one prompt.
        n: validation questions of each task that it was chosen by.
    """

    choice: Choice
    accuracy: PathwayAccuracy
    view: View
    n: int


def pathway_section(pruned: Pruned) -> str:
    """How the pathway was chosen, its picture and accuracies, a table by task, and circuitsvis's view of its edges."""
    found, choice = pruned.accuracy, pruned.choice
    lost, live, kept = found.loss(), found.live_edges_kept, found.edges_kept
    body = paragraph(
        "A pathway says in which layers frames may look at earlier frames, the question at the video, and the last "
        "token at the question; everything else is cut, with no position left out through which something could leak. "
        f"It was chosen on {pruned.n} validation questions of each task, by the paper’s rule: a bin of layers is open "
        "if cutting it costs more than 5 %, here of the logit by which the right option leads (a probability near 1 "
        "hardly moves), and for any of the tasks. It is judged by the test questions."
    )
    body += embed(
        found.figure(),
        alt="Layers in which each route is open, and accuracy in full, along the pathway, and under random cuts",
        caption=f"<b>What is left open, and what that leaves of the answers.</b> n = {found.n} questions. The pathway "
        f"keeps {_percent(kept)} of the attention edges and {_percent(live)} of the <i>live</i> ones, those on some "
        f"path to the last token, and loses {_points(lost)} points. Random cuts leave as many live edges: the same "
        "number anywhere, or as many along every route and in every layer, but other ones.",
    )
    head = ["task", *(escape(condition) for condition in found.conditions), "points lost along the pathway"]
    rows = []
    for task in [None, *found.tasks] if len(found.tasks) > 1 else [None]:
        cells = [_share(found.mean("correct", condition, task=task)) for condition in found.conditions]
        rows.append([escape(task or "all"), *cells, _points(found.loss(task=task))])
    note = "Right choices in %, 95 % bootstrap over questions; losses are paired by question. "
    on_validation = choice.validated.loss()
    note += f"On the validation questions the pathway loses {_points(on_validation)} points (n = {choice.validated.n})."
    body += table(head, rows, note=note)
    return body + (
        '<div class="screen"><details id="pruned" open><summary>Every layer: edges kept and removed between the parts '
        f"of a prompt</summary>{pruned.view.body}</details></div>"
    )


def answer_section(trace: AnswerTrace) -> str:
    """The probability of true and false options after every layer."""
    rise = trace.rise()
    body = paragraph(
        "What the model would answer if it stopped after a layer: the last token’s hidden state, through the final "
        "norm and the unembedding. If the question must first be integrated with the video, the true option rises "
        "late, and at once."
    )
    return body + embed(
        trace.figure(),
        alt="Probability of the true and the false options at the last token after every layer, one panel per task",
        caption=f"<b>The answer, layer by layer</b> (the paper’s figure 9). n = {trace.n} questions answered rightly. "
        f"Over all tasks layer {rise.layer.value + 1:.0f} adds most, {100 * rise.amount.value:.0f} points "
        f"[{100 * rise.amount.low:.0f}, {100 * rise.amount.high:.0f}].",
    )


def lens_section(lens: LogitLens, layer: int) -> str:
    """Words on the frames of one clip, and in which layers keywords are found."""
    body = paragraph(
        "The hidden state of every video token, read as a word. In a model trained on much text such words name what "
        "a patch shows; this small one was never asked to name its patches, and what they read as is mostly not what "
        "they show. The reading is exact all the same, and the code is that for a large model."
    )
    body += embed(
        lens.figure("frames", layer=layer),
        alt="The likeliest word of every patch, written on the frames",
        caption=f"<b>Words on frames</b> (figure 5), after layer {layer + 1}. One clip: no single patch is a finding.",
        pixels=True,
    )
    if not lens.settings.groups:
        return body + paragraph("None of the benchmark’s words is in this model’s vocabulary: no frequencies.")
    return body + embed(
        lens.figure("keywords"),
        alt="Share of each keyword's finds per bin of layers",
        caption=f"<b>In which layers keywords are found</b> (figure 4). n = {lens.n} questions.",
    )


def _share(interval: Interval) -> str:
    return f"{100 * interval.value:.0f}<br><small>{100 * interval.low:.0f} – {100 * interval.high:.0f}</small>"


def _percent(interval: Interval) -> str:
    return f"{100 * interval.value:.0f} %"


def _points(interval: Interval) -> str:
    numbers = [f"{number + 0.0:.1f}".replace("-0.0", "0.0").replace("-", "−") for number in _ends(interval)]
    return f"{numbers[0]} [{numbers[1]}, {numbers[2]}]"


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high
