"""What benchmarks share: a folder of listings, one for each task, and videos; all is checked when it is opened."""

from __future__ import annotations

import pkgutil
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal

from videolens.datasets.listing import Record, read_listing
from videolens.datasets.questions import Missing, Questions, counted
from videolens.errors import DatasetError, near
from videolens.question import Question
from videolens.video.sampling import Sampling
from videolens.video.video import Video

WhenMissing = Literal["error", "report"]


@dataclass(frozen=True)
class Look:
    """How videos are looked at: how many frames, and which ("midpoints", …: see `Video.open`)."""

    n_frames: int = 8
    sampling: Sampling = "midpoints"

    def open(self, paths: Sequence[Path], start: float | int | None = None, end: float | int | None = None) -> Video:
        """The first of the files that is there, else the first; decoded when it is first looked at."""
        path = next((each for each in paths if each.exists()), paths[0])
        return Video.open(path, n_frames=self.n_frames, start=start, end=end, sampling=self.sampling)


@dataclass(frozen=True)
class Wanted:
    """What of a benchmark is loaded.

    Attributes:
        name: the benchmark, as it was asked for.
        tasks: which; None: all.
        n: how many questions of each task; None: all.
        split: "train", "validation", "test", or whatever a benchmark has.
        seed: for benchmarks that are made up.
    """

    name: str
    tasks: Sequence[str] | None = None
    n: int | None = None
    split: str = "test"
    seed: int = 0


class Benchmark(ABC):
    """A benchmark: what lies where on disk, and how a question is written.

    To add one, write a file beside `tvbench.py` (or anywhere) that calls `register` with one. Nothing else in the
    package knows a benchmark's name.

    Attributes:
        name: what messages call it ("TVBench"); `load_dataset` knows it by this name in lower case.
        looks: what lies where, in a few words; empty: it is loaded by its name only, and no directory is taken for it.
        keyed: a listing is an object of questions by their keys, else a list.
        required: fields that every question has.
    """

    name: str
    looks: str = ""
    keyed: bool = False
    required: tuple[str, ...] = ()

    @abstractmethod
    def listings(self, root: Path) -> dict[str, Path]:
        """Task → its listing; empty if the directory is not in this layout."""

    @abstractmethod
    def question(self, root: Path, task: str, record: Record, look: Look) -> Question:
        """One question, its fields checked (else a `DatasetError`); whether its video is there is not."""

    def records(self, listing: Path) -> list[Record]:
        """The entries of a listing, a JSON file; a `DatasetError` if it is none, or an entry lacks a field."""
        return read_listing(listing, keyed=self.keyed, required=self.required, benchmark=self.name)

    def asked(self, listing: Path, task: str) -> list[Record]:
        """The entries of a listing that belong to a task: all of them, where each task has a listing of its own."""
        return self.records(listing)

    def fits(self, root: Path) -> int:
        """How surely a directory is in this layout; of several benchmarks the surest is taken.

        0: it is not; 1: it holds listings; 2: it also holds what only this benchmark has.
        """
        return int(bool(self.looks and self.listings(root)))

    def place(self, root: Path | None, wanted: Wanted) -> tuple[Path, Wanted]:
        """Where the questions lie, and which of them are loaded: in `root`, or its subfolder named as the split.

        A `DatasetError` if there is no such directory.
        """
        directory = Path(wanted.name) if root is None else root
        if not directory.is_dir():
            given = "no root is given" if root is None else f"root {root} is no directory"
            raise DatasetError(
                f"{wanted.name!r} lies in a directory of yours, but {given}: load_dataset({wanted.name!r}, root=DIR), "
                "or give its name on the hub (owner/name)"
            )
        return (directory / wanted.split if self.listings(directory / wanted.split) else directory), wanted


class OneListing(Benchmark):
    """A benchmark whose questions of all tasks stand in one listing, and a field of each says its task.

    Attributes:
        listing: where it may lie below the data set's directory; the first that is there is read.
        task_field: the field that says the task. It is called in lower case in the API.
    """

    listing: tuple[str, ...] = ()
    task_field: str = "task"

    def file(self, root: Path) -> Path | None:
        """The listing, if there is one."""
        return next((root / name for name in self.listing if (root / name).is_file()), None)

    def listings(self, root: Path) -> dict[str, Path]:
        """Every task that occurs → the one listing."""
        file = self.file(root)
        found = [] if file is None else sorted({self.task(record) for record in self.records(file)})
        return {task: file for task in found if file is not None}

    def asked(self, listing: Path, task: str) -> list[Record]:
        """The entries whose field says this task."""
        return [record for record in self.records(listing) if self.task(record) == task]

    def task(self, record: Record) -> str:
        """The task of an entry, as it is called in the API."""
        return record.text(self.task_field).strip().lower().replace("_", " ")

    def fits(self, root: Path) -> int:
        """Its listing is called, and lies, as no other benchmark's."""
        return 2 if self.file(root) else 0


_BENCHMARKS: dict[str, Benchmark] = {}


def register(benchmark: Benchmark) -> Benchmark:
    """Make a benchmark known to `load_dataset`. Registering the same name again replaces it.

    Raises:
        DatasetError: it is no `Benchmark`, or has no name.
    """
    if not isinstance(benchmark, Benchmark) or not str(getattr(benchmark, "name", "")).strip():
        raise DatasetError(f"{benchmark!r} is no benchmark: give an object of a subclass of Benchmark that has a name")
    _BENCHMARKS[benchmark.name.lower()] = benchmark
    return benchmark


def known_benchmarks() -> dict[str, Benchmark]:
    """The benchmarks by name, in alphabetical order: every file of this folder registers its own."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        import_module(f"{__package__}.{module.name}")
    return dict(sorted(_BENCHMARKS.items()))


def slug(task: str) -> str:
    """A task's name as it is in file names: "moving direction" → "moving_direction"."""
    return task.lower().replace(" ", "_")


def listings_in(folder: Path) -> dict[str, Path]:
    """The listings of a folder by their tasks' names in the API: visual_cues.json → "visual cues"."""
    return {path.stem.replace("_", " "): path for path in sorted(folder.glob("*.json"))}


def open_benchmark(benchmark: Benchmark, root: Path, wanted: Wanted, *, missing: WhenMissing, look: Look) -> Questions:
    """The questions of a benchmark.

    1. Find the listings of the tasks.
    2. Read each whole and check every entry of it, also those beyond the first `n`.
    3. Look whether the videos of the first `n` are there.
    4. Refuse if one is not, or leave its question out and say so.

    Raises:
        DatasetError: the directory is in another layout, no such task, a listing or an entry that is not as it should
            be, fewer than `n` questions, videos that are not there.
    """
    # 1. listings
    listings = benchmark.listings(root)
    if not listings:
        raise DatasetError(f"{root} holds no listings of {benchmark.name}: its layout is {benchmark.looks}")
    tasks, n = wanted.tasks, wanted.n
    names = list(listings) if tasks is None else [_known(task, listings, benchmark.name, root) for task in tasks]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DatasetError(f"task {twice[0]!r} is asked for twice: name each task once")

    questions: list[Question] = []
    left_out: list[Missing] = []
    for task in names:
        # 2. entries
        listing = listings[task]
        records = benchmark.asked(listing, task)
        found = [benchmark.question(root, task, record, look) for record in records]
        _ids_differ(records, found)
        if n is not None and n > len(found):
            raise DatasetError(f"{listing} has {len(found)} questions, fewer than the n = {n} asked for")
        # 3. videos
        for question in found[:n]:
            path = question.video.path
            assert path is not None, "a benchmark's videos are files"
            reason = _trouble(path)
            if reason is None:
                questions.append(question)
            else:
                left_out.append(Missing(task, question.id, path, reason))
    # 4. what is missing
    if left_out and (missing == "error" or not questions):
        raise DatasetError(_lacking(benchmark, root, left_out, len(questions) + len(left_out)))
    if left_out:
        warnings.warn(
            f"{len(left_out)} of {len(questions) + len(left_out)} questions have no video and are left out: "
            f"{counted(left_out)}; .missing of what load_dataset returns lists them",
            stacklevel=3,
        )
    return Questions(questions, left_out)


def _known(task: str, listings: dict[str, Path], name: str, root: Path) -> str:
    """The task's name in the API; "Action Antonym", "action_antonym" and "Fine-grained action" are understood."""
    folded = {_folded(each): each for each in listings}
    known = task if task in listings else folded.get(_folded(task))
    if known is None:
        raise DatasetError(near(task, listings, kind="task") + f" ({name} in {root})")
    return known


def _folded(task: str) -> str:
    return task.lower().replace("_", " ").replace("-", " ")


def _ids_differ(records: Sequence[Record], questions: Sequence[Question]) -> None:
    first: dict[str, Record] = {}
    for record, question in zip(records, questions, strict=True):
        if question.id in first:
            raise record.error("id", f"{question.id!r} is also the id of entry {first[question.id].key!r}: change one")
        first[question.id] = record


def _trouble(path: Path) -> str | None:
    """What is wrong with a video file, as far as can be told without reading it; None: nothing."""
    try:
        size = path.stat().st_size
    except OSError:
        return "is not there"
    if path.is_dir():
        return "is a folder, not a video file"
    if size == 0:
        return "has zero bytes"
    if size < 1024 and path.read_bytes().startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the video (git lfs pull)"
    return None


def _lacking(benchmark: Benchmark, root: Path, left_out: list[Missing], n_questions: int) -> str:
    """The one message for all videos that are not there."""
    files = {each.path: each.reason for each in left_out}
    shown = "; ".join(f"{path} {reason}" for path, reason in list(files.items())[:3])
    more = f"; and {len(files) - 3} more" if len(files) > 3 else ""
    packed = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.zip"))
    unpack = f" (still packed: {', '.join(packed[:3])}{', …' if len(packed) > 3 else ''}: unzip them there)"
    folders = any(each.reason.startswith("is a folder") for each in left_out)
    frames = " (of a folder of frames make a video: ffmpeg -framerate 3 -i FOLDER/%05d.jpg FOLDER.mp4)"
    return (
        f"{benchmark.name} in {root}: {len(files)} videos are missing, of {len(left_out)} of {n_questions} questions "
        f"({counted(left_out)}): {shown}{more}. Put them there{unpack if packed else ''}{frames if folders else ''}, "
        "name other tasks, or leave these questions out and have them listed: load_dataset(…, missing='report')"
        + ("" if len(left_out) < n_questions else "; no question at all has its video")
    )
