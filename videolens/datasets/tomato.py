"""TOMATO's layout on disk: `jsons/{task}.json`, objects of questions by number, and `videos/{demonstration_type}/`.

An entry is {question, options, answer, key, demonstration_type, …}; the answer is the right option's place, counted
from 0, and the video is `videos/{demonstration_type}/{key}.mp4` (yale-nlp/TOMATO, where the listings are in `data/`).
1484 questions: count 292, direction 403, rotation 286, shape&trend 223, velocity&frequency 210, visual cues 70.
"""

from __future__ import annotations

from pathlib import Path

from videolens.datasets.benchmark import Benchmark, Look, listings_in, register
from videolens.datasets.listing import Record
from videolens.question import Question

TASKS = ("count", "direction", "rotation", "shape&trend", "velocity&frequency", "visual cues")


class Tomato(Benchmark):
    """`jsons/{task}.json` and `videos/{demonstration_type}/{key}.mp4`."""

    name = "TOMATO"
    looks = "jsons/{task}.json (or data/{task}.json) and videos/{demonstration_type}/{key}.mp4"
    keyed = True
    required: tuple[str, ...] = ("question", "options", "answer", "key", "demonstration_type")

    def listings(self, root: Path) -> dict[str, Path]:
        """Task → its listing; of `data/`, where other things may lie, only the benchmark's own."""
        found = listings_in(root / "data")
        return listings_in(root / "jsons") or {task: found[task] for task in TASKS if task in found}

    def question(self, root: Path, task: str, record: Record, look: Look) -> Question:
        """One question; it is called by its task and its number there: "count-17"."""
        start, end = record.part()
        options = record.options("options")
        folder, key = record.file("demonstration_type"), record.file("key")
        return Question(
            video=look.open([root / "videos" / folder / f"{key}.mp4"], start, end),
            stem=record.text("question"),
            options=options,
            answer=record.place("answer", options),
            task=task,
            id=f"{record.listing.stem}-{record.key}",
            meta=record.but("question", "options", "answer"),
        )

    def fits(self, root: Path) -> int:
        """Its listings are called and lie as no other benchmark's."""
        return 2 if self.listings(root) else 0


BENCHMARK = register(Tomato())
