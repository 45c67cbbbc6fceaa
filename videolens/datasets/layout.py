"""TVBench's layout on disk: `json/{task}.json`, a list of {video, question, candidates, answer}, and `video/{task}/`.

The procedural benchmark is written in it and read back through it, and so is anybody's own data set.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from videolens.errors import DatasetError, near
from videolens.question import Question
from videolens.video import Video

REQUIRED = ("video", "question", "candidates", "answer")


def slug(task: str) -> str:
    """A task's name as it is in file names: "moving direction" → "moving_direction"."""
    return task.lower().replace(" ", "_")


def tasks_in(directory: Path) -> list[str]:
    """The tasks that a directory has questions for, as they are called in the API."""
    return sorted(path.stem.replace("_", " ") for path in (directory / "json").glob("*.json"))


def read_task(directory: Path, task: str, *, n: int | None = None, n_frames: int = 8) -> list[Question]:
    """The first `n` questions of one task; videos are opened when they are first looked at.

    Raises:
        DatasetError: no such task (the message lists those there are), a listing that is not JSON or not a list, an
            entry without one of the fields, a missing video, or fewer than `n` questions.
    """
    listing = directory / "json" / f"{slug(task)}.json"
    if not listing.exists():
        raise DatasetError(f"{listing} is not there: " + near(task, tasks_in(directory), kind="task"))
    try:
        entries = json.loads(listing.read_text())
    except ValueError as error:
        raise DatasetError(f"{listing} is not JSON ({error}): write it anew") from error
    if not isinstance(entries, list):
        raise DatasetError(f"{listing} holds a {type(entries).__name__}, not a list of questions as TVBench's files do")
    if not entries:
        raise DatasetError(f"{listing} holds no questions: take the file away, or write some")
    if n is not None and n > len(entries):
        raise DatasetError(f"{listing} has {len(entries)} questions, fewer than the n = {n} asked for")
    folder = directory / "video" / slug(task)
    return [_question(entry, i, task, listing, folder, n_frames) for i, entry in enumerate(entries[:n])]


def _question(entry: Any, i: int, task: str, listing: Path, folder: Path, n_frames: int) -> Question:
    missing = [field for field in REQUIRED if not isinstance(entry, dict) or field not in entry]
    if missing:
        raise DatasetError(f"{listing}, entry {i}: no {', '.join(missing)}; TVBench's fields are {', '.join(REQUIRED)}")
    path = folder / entry["video"]
    if not path.exists():
        raise DatasetError(f"{listing}, entry {i}: its video {path} is not there; put it there or take the entry out")
    return Question(
        video=Video.open(path, n_frames=n_frames, start=entry.get("start"), end=entry.get("end")),
        stem=entry["question"],
        options=entry["candidates"],
        answer=entry["answer"],
        task=task,
        id=str(entry.get("id", f"{slug(task)}-{i:05d}")),
        completion=entry.get("completion"),
        reversed_answer=entry.get("reversed_answer"),
    )
