"""TVBench's layout on disk: `json/{task}.json`, lists of questions, and `video/{task}/`.

An entry is {video, question, candidates, answer}, the answer being one of the candidates, word for word; in Action
Sequence and Action Localization also start and end, in seconds (FunAILab/TVBench). The procedural benchmark is written
in this layout and read back through it, and so is anybody's own data set; three fields of our own may be there as well:
id, completion and reversed_answer.
"""

from __future__ import annotations

from pathlib import Path

from videolens.datasets.benchmark import Benchmark, Look, listings_in, register
from videolens.datasets.listing import Record
from videolens.question import Question

TASKS = (
    "action antonym",
    "action count",
    "action localization",
    "action sequence",
    "egocentric sequence",
    "moving direction",
    "object count",
    "object shuffle",
    "scene transition",
    "unexpected action",
)
PAPER_TASKS = tuple(TASKS[i] for i in (0, 3, 5, 6, 8))
"""The tasks of Map the Flow."""


class TVBench(Benchmark):
    """`json/{task}.json` and `video/{task}/`."""

    name = "TVBench"
    looks = "json/{task}.json and video/{task}/"
    required: tuple[str, ...] = ("video", "question", "candidates", "answer")

    def listings(self, root: Path) -> dict[str, Path]:
        """Task → `json/{task}.json`."""
        return listings_in(root / "json")

    def question(self, root: Path, task: str, record: Record, look: Look) -> Question:
        """One question; without an id of its own it is called by its place: "object_count-00017"."""
        start, end = record.part()
        options = record.options("candidates")
        reversed_answer = None
        if record.fields.get("reversed_answer") is not None:
            reversed_answer = record.one_of("reversed_answer", options)
        return Question(
            video=look.open(self.paths(root, record.listing.stem, record.file("video")), start, end),
            stem=record.text("question"),
            options=options,
            answer=record.one_of("answer", options),
            task=task,
            id=record.text_or_none("id") or f"{record.listing.stem}-{record.key:05d}",
            completion=record.text_or_none("completion"),
            reversed_answer=reversed_answer,
            meta=record.but("question", "candidates", "answer", "id", "completion", "reversed_answer"),
        )

    def paths(self, root: Path, task: str, name: str) -> list[Path]:
        """Where a task's video may lie; the first is where it belongs. `task`: as in file names."""
        return [root / "video" / task / name]


BENCHMARK = register(TVBench())
