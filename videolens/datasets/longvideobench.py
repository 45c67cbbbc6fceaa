"""LongVideoBench's layout on disk: `lvb_val.json`, a list of questions, and `videos/`, its tar parts unpacked.

An entry is {id, video_path, question, candidates, correct_choice, question_category, duration, …}; the right option is
given by its place, counted from 0 (longvideobench/LongVideoBench on the hub). The tasks are the question's categories;
Map the Flow uses three, and samples frames as `sampling="stride"` does. Subtitles are not read. The listing of the test
split, `lvb_test_wo_gt.json`, says no answers, and is not read either.
"""

from __future__ import annotations

from pathlib import Path

from videolens.datasets.benchmark import Look, OneListing, register
from videolens.datasets.listing import Record
from videolens.question import Question

PAPER_TASKS = ("o2e", "o3o", "sos")
"""The categories of Map the Flow (appendix, figures V to Y)."""


class LongVideoBench(OneListing):
    """`lvb_val.json` and `videos/{video_path}`."""

    name = "LongVideoBench"
    looks = "lvb_val.json and videos/{video_path}"
    listing = ("lvb_val.json",)
    task_field = "question_category"
    required: tuple[str, ...] = ("video_path", "question", "candidates", "correct_choice", "question_category")

    def question(self, root: Path, task: str, record: Record, look: Look) -> Question:
        """One question; without an id of its own it is called by its place in the listing."""
        options = record.options("candidates")
        return Question(
            video=look.open([root / "videos" / record.file("video_path")]),
            stem=record.text("question"),
            options=options,
            answer=record.place("correct_choice", options),
            task=task,
            id=record.text_or_none("id") or f"lvb-{record.key:05d}",
            meta=record.but("question", "candidates", "correct_choice", "id"),
        )


BENCHMARK = register(LongVideoBench())
