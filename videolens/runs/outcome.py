"""What a finished run has to show: results, and a summary that counts every question."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from videolens.errors import VideolensError, near
from videolens.experiments.common.asking import Skip, named_prompts
from videolens.experiments.common.thumbnails import LONGEST, thumbnails
from videolens.question import Question
from videolens.runs.config import RunConfig
from videolens.runs.directory import MANIFEST, RESULTS, SUMMARY
from videolens.runs.parts import Part, joined
from videolens.runs.registry import result_class
from videolens.runs.summary import spelled
from videolens.runs.writing import LEFTOVER, commit_directory

__all__ = ["Run", "write_results"]

PICTURED = 4
"""Questions whose frames are kept beside a table, for figures that are drawn on frames, unless `pictures` says so."""


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run.

    Attributes:
        path: its directory.
        summary: questions asked, answered, left out and failed, per experiment.
    """

    path: Path
    summary: dict[str, Any]

    @classmethod
    def load(cls, path: str | Path) -> Run:
        """Read a finished run.

        Raises:
            VideolensError: the directory holds no run, or one that is not finished.
        """
        path = Path(path)
        if not (path / MANIFEST).is_file():
            raise VideolensError(f"{path} holds no run: give the directory that `run` wrote to")
        summary = path / RESULTS / SUMMARY
        if not summary.is_file():
            raise VideolensError(f"the run in {path} is not finished: run it again with the same config, it goes on")
        try:
            found = json.loads(summary.read_text(encoding="utf-8"))
        except ValueError as error:
            raise VideolensError(
                f"{summary} cannot be read ({error}): take {summary.parent} away and run the config again, which makes "
                "it anew from the run's parts"
            ) from error
        return cls(path, found)

    def checked(self) -> Run:
        """The run itself.

        Raises:
            VideolensError: no experiment has a result.
        """
        if not self.labels:
            reasons = "; ".join(f"{name}: {each['without']}" for name, each in self.summary["experiments"].items())
            raise VideolensError(
                f"the run in {self.path} is finished, and no experiment has a result: {reasons}. "
                f"{self.path / RESULTS / 'summary.md'} lists every question"
            )
        return self

    @property
    def labels(self) -> list[str]:
        """Labels of the experiments that have a result."""
        return [label for label, each in self.summary["experiments"].items() if each["without"] is None]

    @property
    def without(self) -> list[str]:
        """Labels of the experiments that have none."""
        return [label for label in self.summary["experiments"] if label not in self.labels]

    def result(self, label: str | None = None) -> Any:
        """The result of an experiment. `label` None: of the only one.

        Raises:
            VideolensError: no such experiment, several and no label, or it has no result.
        """
        known = self.summary["experiments"]
        if label is None:
            if len(known) != 1:
                raise VideolensError(f"the run has the experiments {list(known)}: name one")
            label = next(iter(known))
        if label not in known:
            raise VideolensError(near(label, known, kind="experiment of this run"))
        if known[label]["without"] is not None:
            raise VideolensError(f"{label!r} has no result: {known[label]['without']}")
        return result_class(known[label]["name"]).load(self.path / RESULTS / label)

    @property
    def results(self) -> dict[str, Any]:
        """Every result by its label."""
        return {label: self.result(label) for label in self.labels}

    @property
    def errors(self) -> pd.DataFrame:
        """Questions that could not be asked: experiment, question, task, error, message."""
        rows = [
            {"experiment": label} | failure
            for label, each in self.summary["experiments"].items()
            for failure in each["failures"]
        ]
        return pd.DataFrame(rows, columns=["experiment", "question", "task", "error", "message"])

    def __str__(self) -> str:
        return spelled(self.summary)


def write_results(
    path: Path,
    config: RunConfig,
    identity: Mapping[str, Any],
    experiments: Mapping[str, Any],
    questions: Sequence[Question],
    done: Mapping[tuple[str, int], Part],
) -> None:
    """Put the parts of every experiment together, and write `results/` whole or not at all.

    1. Join the tables, in the order of the questions; a question that failed counts as asked and left out.
    2. Save result, its summary and its figure into a folder per label. An experiment that has nothing to show says why.
    3. Write the summary, as JSON and for people, and give the folder its name.

    Nothing in it says when or how fast it was made, so that a run that was resumed gives the same files.
    """
    unfinished = path / f"{LEFTOVER}{RESULTS}"
    unfinished.mkdir()
    found: dict[str, Any] = {}
    for each in config.experiments:
        # 1.
        parts = [part for (label, _), part in sorted(done.items()) if label == each.label]
        failures = [failure for part in parts for failure in part.failures]
        skipped = [skip for part in parts for skip in part.skipped]
        lost = [Skip(one.question, one.task, None, f"error: {one.message}") for one in failures]
        experiment = experiments[each.label]
        table = joined(experiment, parts)
        if hasattr(experiment, "clips") and getattr(experiment, "frames", True):
            experiment.clips += _clips(experiment, questions, table)
        # 2.
        without = undrawn = None
        try:
            result = experiment.result(table, [*skipped, *lost], len(questions), None)
        except VideolensError as error:
            without = str(error)
            if len(failures) == len(questions):
                without = f"nothing but errors, {len(failures)} of {len(questions)} questions: {failures[0].message}"
        else:
            undrawn = _save(result, unfinished / each.label, figures=config.figures)
        found[each.label] = {
            "name": each.name,
            "asked": len(questions),
            "answered": len(table[["task", "question"]].drop_duplicates()),
            "rows": len(table),
            "left out": [
                {"route": route, "reason": reason, "questions": n}
                for (route, reason), n in Counter((skip.route, skip.reason) for skip in skipped).items()
            ],
            "failures": [asdict(failure) for failure in failures],
            "without": without,
            "undrawn": undrawn,
        }
    # 3.
    summary = {
        "model": config.model["name"],
        "model_sha256": identity["model"]["sha256"],
        "dataset": config.dataset,
        "dataset_sha256": identity["dataset"]["sha256"],
        "seed": config.seed,
        "questions": len(questions),
        "missing": [
            {"task": each.task, "question": each.id, "path": str(each.path), "reason": each.reason}
            for each in getattr(questions, "missing", ())
        ],
        "experiments": found,
    }
    (unfinished / SUMMARY).write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (unfinished / "summary.md").write_text(spelled(summary) + "\n", encoding="utf-8")
    commit_directory(unfinished, path / RESULTS)


def _save(result: Any, folder: Path, *, figures: bool) -> str | None:
    """Save a result, its summary and its figure; why it could not be drawn, if it could not."""
    result.save(folder)
    if callable(summary := getattr(result, "summary", None)) and isinstance(found := summary(), pd.DataFrame):
        found.to_csv(folder / "summary.csv", index=False)
    if not figures:
        return None
    try:
        result.figure().savefig(folder / "figure.png", dpi=200)
    except Exception as error:  # whatever goes wrong in drawing: a table that took days must not wait for its picture
        (folder / "figure.png").unlink(missing_ok=True)
        return f"{type(error).__name__}: {error}"
    return None


def _clips(experiment: Any, questions: Sequence[Question], table: pd.DataFrame) -> list[tuple[str, str, int, bytes]]:
    """Frames of the table's first questions, for experiments that draw on them: as many (`pictures`) and as large
    (`picture_size`) as the experiment says. They are made here and not kept in the parts: what an experiment collects
    while it asks goes with a process that is killed."""
    n, size = getattr(experiment, "pictures", PICTURED), getattr(experiment, "picture_size", LONGEST)
    kept = set(table[["task", "question"]].drop_duplicates().itertuples(index=False, name=None))
    first = [question for question in questions if (question.task, question.id) in kept][:n]
    return [
        (name, task, frame, png)
        for name, task, prompt in named_prompts(experiment.model, first)
        for frame, png in thumbnails(prompt, experiment.model.pixel_settings, longest=size)
    ]
