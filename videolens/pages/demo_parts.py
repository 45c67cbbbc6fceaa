"""What a demonstration is asked, and everything that it found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from videolens.drawing.view import View
from videolens.errors import VideolensError
from videolens.experiments.accuracy.result import Accuracy
from videolens.experiments.answer_trace.result import AnswerTrace
from videolens.experiments.claims.result import Claims
from videolens.experiments.flow.cost import SideBySide
from videolens.experiments.flow.result import FlowMap
from videolens.experiments.logit_lens.result import LogitLens
from videolens.experiments.pathway.choice import Choice
from videolens.experiments.pathway.result import PathwayAccuracy
from videolens.experiments.segment_attention.result import SegmentAttention
from videolens.explorer.explore import Explorer
from videolens.pages.clips import AnsweredClip
from videolens.pages.demo_evidence import Evidence
from videolens.pages.demo_search import Smallest

COMPARED = 2
"""Questions, each of another task, that are mapped by the published procedure as well. It takes ten times as long."""

CHOSEN_BY = 10
"""Validation questions of each task that the pathway is chosen by: any ten choose the same one."""

EXPLORER = "explorer.html"
"""The file of the explorer, beside the page."""

READ = 4
"""Questions of each task whose video tokens are read as words."""


@dataclass(frozen=True)
class DemoSettings:
    """Which models are asked which questions.

    Attributes:
        model: the video-tuned model: a bundled name, a directory or a hub name.
        base: its image-only base.
        n: questions of each temporal task that are mapped.
        n_accuracy: questions of each task for the accuracies; the mapped ones are the first of them.
        seed: of the questions, the shuffled frames and the bootstrap.
        split: of the procedural benchmark.
        dtype: of both models; None: the checkpoints' own.

    Raises:
        VideolensError: less than one question, or the same model twice.
    """

    model: str = "shapes"
    base: str = "shapes-image"
    n: int = 20
    n_accuracy: int = 40
    seed: int = 0
    split: str = "test"
    dtype: str | None = None

    def plain(self) -> dict[str, Any]:
        """As plain data; without a dtype where none is asked for."""
        return {name: value for name, value in asdict(self).items() if (name, value) != ("dtype", None)}

    def __post_init__(self) -> None:
        for name in ("n", "n_accuracy"):
            if getattr(self, name) < 1:
                raise VideolensError(f"{name} = {getattr(self, name)}: ask for at least one question per task")
        if self.model == self.base:
            raise VideolensError(f"the model and its base are both {self.model!r}: name two different ones")


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


@dataclass(frozen=True, eq=False)
class Demo:
    """Everything the page shows, computed.

    Attributes:
        settings: what was asked for.
        clips: one clip per task with both models' answers.
        accuracy: both models under every condition.
        tuned, base: the flow maps.
        claims: what they say about the paper's claims.
        attention: between segments, of both models.
        pruned: the tuned model along one pathway.
        smallest: the smallest pathway that a search finds, and what running it saves.
        evidence: what both pathways bear, and what is there without hints.
        trace: its answer, layer by layer.
        lens: the words that its video tokens are read as.
        explorer: one question, in both models.
        check: `COMPARED` questions mapped by the published procedure as well.
        models: what each model is, in words, by name.
        seconds: how long it took.
        versions: of Python and the packages that matter.
    """

    settings: DemoSettings
    clips: tuple[AnsweredClip, ...]
    accuracy: Accuracy
    tuned: FlowMap
    base: FlowMap
    claims: Claims
    attention: tuple[SegmentAttention, SegmentAttention]
    pruned: Pruned
    smallest: Smallest
    evidence: Evidence
    trace: AnswerTrace
    lens: LogitLens
    check: SideBySide
    explorer: Explorer
    models: dict[str, str]
    seconds: float
    versions: dict[str, str]

    @property
    def flows(self) -> tuple[FlowMap, FlowMap]:
        """Tuned, base."""
        return self.tuned, self.base
