"""VCGBench's layout on disk: `Benchmarking_QA/{generic,temporal,consistency}_qa.json` and `Test_Videos/`.

An entry is {Q, A, video_name}, in the consistency file {Q1, Q2, A, video_name}: two ways of asking one thing
(Video-ChatGPT's quantitative benchmark). Questions are open-ended, and the answer is a text to compare with, of many
tokens. Map the Flow uses the temporal ones (appendix D).
"""

from __future__ import annotations

from pathlib import Path

from videolens.datasets.benchmark import Benchmark, Look, register
from videolens.datasets.listing import Record, checked_records, read_listing
from videolens.question import Question

PAPER_TASKS = ("temporal",)
ENDINGS = (".mp4", ".mkv", ".webm", ".avi", ".mov")


class VCGBench(Benchmark):
    """`Benchmarking_QA/{task}_qa.json` and `Test_Videos/{video_name}.mp4` (or `.mkv`)."""

    name = "VCGBench"
    looks = "Benchmarking_QA/{generic,temporal,consistency}_qa.json and Test_Videos/{video_name}.mp4"
    required: tuple[str, ...] = ("Q", "A", "video_name")

    def listings(self, root: Path) -> dict[str, Path]:
        """Task → its listing."""
        files = sorted((root / "Benchmarking_QA").glob("*_qa.json"))
        return {path.stem.removesuffix("_qa"): path for path in files}

    def records(self, listing: Path) -> list[Record]:
        """The questions; an entry that asks twice is two of them, "17-1" and "17-2"."""
        read = read_listing(listing, keyed=False, required=("A", "video_name"), benchmark=self.name)
        entries: list[tuple[int | str, object]] = []
        for record in read:
            twice = [field for field in ("Q1", "Q2") if field in record.fields]
            if "Q" in record.fields or not twice:
                entries.append((record.key, record.fields))
            else:
                entries += [(f"{record.key}-{q[1]}", {"Q": record.fields[q]} | record.but(*twice)) for q in twice]
        return checked_records(listing, entries, self.required, self.name)

    def question(self, root: Path, task: str, record: Record, look: Look) -> Question:
        """One question without options, called by its task and its place."""
        name = record.file("video_name")
        return Question(
            video=look.open([root / "Test_Videos" / f"{name}{ending}" for ending in ENDINGS]),
            stem=record.text("Q"),
            answer=record.text("A"),
            task=task,
            id=f"{task}-{record.key}",
            meta=record.but("Q", "A"),
        )

    def fits(self, root: Path) -> int:
        """Its folders are called as no other benchmark's."""
        return 2 if self.listings(root) else 0


BENCHMARK = register(VCGBench())
