"""TempCompass's layout on disk: its multiple-choice questions, and `videos/{id}.mp4`.

As its repository has them (llyx97/TempCompass), `questions/multi-choice.json` is an object: video → aspect → a list of
{question, answer}, the options being lines of the question, "A. left to right". As the hub has them
(lmms-lab/TempCompass), `multi-choice/test-00000-of-00001.parquet` is a table of {video_id, dim, question, answer}. The
tasks are the aspects: action, attribute change, direction, order, speed. Clips come with copies of themselves that run
backwards or at another speed (`…_reverse`), asked the same words. Of its four kinds of question, this is the one that
has options with letters; the others (yes/no, captions, caption matching) are not read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from videolens.datasets.benchmark import Look, OneListing, register
from videolens.datasets.listing import Record, checked_records, read_columns
from videolens.errors import DatasetError, VideolensError
from videolens.question import Question
from videolens.reading import read_json


class TempCompass(OneListing):
    """`questions/multi-choice.json`, or the hub's table of it, and `videos/{id}.mp4`."""

    name = "TempCompass"
    looks = "questions/multi-choice.json (or multi-choice/test-00000-of-00001.parquet) and videos/{id}.mp4"
    listing = ("questions/multi-choice.json", "multi-choice/test-00000-of-00001.parquet")
    task_field = "dim"
    required: tuple[str, ...] = ("video_id", "dim", "question", "answer")

    def records(self, listing: Path) -> list[Record]:
        """The questions, called by video, aspect and place: "1034419625-direction-0"."""
        if listing.suffix == ".json":
            entries = list(_unfolded(listing))
        else:
            rows = read_columns(listing, required=self.required, benchmark=self.name)
            entries = [dict(row.fields) for row in rows]
        seen: Counter[str] = Counter()
        named = []
        for fields in entries:
            name = f"{fields.get('video_id')}-{fields.get('dim')}"
            named.append((f"{name}-{seen[name]}", fields))
            seen[name] += 1
        return checked_records(listing, named, self.required, self.name)

    def question(self, root: Path, task: str, record: Record, look: Look) -> Question:
        """One question: the first line asks, the others are its options."""
        stem, *lines = (line.strip() for line in record.text("question").strip().splitlines())
        options = record.lettered("question", lines)
        answer = record.text("answer").strip()
        if answer not in lines:
            raise record.error("answer", f"{answer!r:.80} is none of the lines {lines}: give one, with its letter")
        return Question(
            video=look.open([root / "videos" / f"{record.file('video_id')}.mp4"]),
            stem=stem,
            options=options,
            answer=options[lines.index(answer)],
            task=task,
            id=str(record.key),
            meta=record.but("question", "answer"),
        )


def _unfolded(listing: Path) -> Iterator[dict[str, Any]]:
    """The entries of the nested listing, each with its video and its aspect."""
    try:
        content = read_json(listing)
    except VideolensError as error:
        raise DatasetError(str(error)) from error
    for video, aspects in content.items():
        for aspect, asked in aspects.items() if isinstance(aspects, dict) else [("", None)]:
            if not isinstance(asked, list) or not all(isinstance(each, dict) for each in asked):
                raise DatasetError(
                    f"{listing}, entry {video!r} {aspect!r}: give a list of objects with question and answer"
                )
            yield from ({"video_id": video, "dim": aspect} | each for each in asked)


BENCHMARK = register(TempCompass())
