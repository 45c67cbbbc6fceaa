"""A benchmark of one's own, in one file: a folder for each task, with its listing and its clips."""

from __future__ import annotations

from pathlib import Path

from videolens import Question
from videolens.datasets.benchmark import Benchmark, Look, register
from videolens.datasets.listing import Record


class ToyBench(Benchmark):
    """`{task}/asked.json`, a list of {clip, ask, answers, right}, and `{task}/{clip}`."""

    name = "ToyBench"
    looks = "{task}/asked.json and {task}/{clip}"
    required = ("clip", "ask", "answers", "right")

    def listings(self, root: Path) -> dict[str, Path]:
        """Task → its listing."""
        return {path.parent.name: path for path in sorted(root.glob("*/asked.json"))}

    def question(self, root: Path, task: str, record: Record, look: Look) -> Question:
        """One question, called by its task and its place there."""
        options = record.options("answers")
        return Question(
            video=look.open([root / task / record.file("clip")]),
            stem=record.text("ask"),
            options=options,
            answer=record.one_of("right", options),
            task=task,
            id=f"{task}-{record.key}",
            meta=record.but("ask", "answers", "right"),
        )


BENCHMARK = register(ToyBench())
