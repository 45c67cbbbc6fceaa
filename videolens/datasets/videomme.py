"""Video-MME's layout on disk: `videomme/test-00000-of-00001.parquet`, a row a question, and `data/{videoID}.mp4`.

A row is {videoID, question_id, task_type, question, options, answer, duration, domain, sub_category, …}; options begin
with their letters, and the answer is a letter (lmms-lab/Video-MME on the hub). The tasks are the twelve task types.
Subtitles are not read.
"""

from __future__ import annotations

from pathlib import Path

from videolens.datasets.benchmark import Look, OneListing, register
from videolens.datasets.listing import Record, read_columns
from videolens.question import Question

PAPER_TASKS = ("action recognition", "spatial perception")
"""The task types of Map the Flow (appendix, figure Z)."""


class VideoMME(OneListing):
    """`videomme/test-00000-of-00001.parquet` and `data/{videoID}.mp4`."""

    name = "Video-MME"
    looks = "videomme/test-00000-of-00001.parquet and data/{videoID}.mp4"
    listing = ("videomme/test-00000-of-00001.parquet",)
    task_field = "task_type"
    required: tuple[str, ...] = ("videoID", "question_id", "task_type", "question", "options", "answer")

    def records(self, listing: Path) -> list[Record]:
        """The rows of the table."""
        return read_columns(listing, required=self.required, benchmark=self.name)

    def question(self, root: Path, task: str, record: Record, look: Look) -> Question:
        """One question, called by its `question_id` ("001-1")."""
        listed = record.options("options")
        options = record.lettered("options", listed)
        return Question(
            video=look.open([root / "data" / f"{record.file('videoID')}.mp4"]),
            stem=record.text("question"),
            options=options,
            answer=record.letter("answer", options),
            task=task,
            id=record.text("question_id"),
            meta=record.but("question", "options", "answer", "question_id"),
        )


BENCHMARK = register(VideoMME())
