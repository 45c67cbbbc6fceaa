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
from videolens.experiments import declared
from videolens.experiments.common.experiment import Experiment
from videolens.question import Question
from videolens.runs.config import ExperimentConfig, RunConfig
from videolens.runs.directory import MANIFEST, RESULTS, SUMMARY
from videolens.runs.parts import Part, joined
from videolens.runs.summary import spelled
from videolens.runs.writing import LEFTOVER, commit_directory

__all__ = ["Run", "write_results"]


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
        return declared(known[label]["name"]).result_class.load(self.path / RESULTS / label)

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
    experiments: Mapping[str, Experiment[Any]],
    questions: Sequence[Question],
    done: Mapping[tuple[str, int], Part],
) -> None:
    """Put the parts of every experiment together, and write `results/` whole or not at all.

    1. Per experiment: join its parts, and save result, summary and figure into a folder of its label. One that has
       nothing to show says why.
    2. Write the summary, as JSON and for people, and give the folder its name.

    Nothing in it says when or how fast it was made, so that a run that was resumed gives the same files.
    """
    unfinished = path / f"{LEFTOVER}{RESULTS}"
    unfinished.mkdir()
    # 1.
    found = {}
    for each in config.experiments:
        parts = [part for (label, _), part in sorted(done.items()) if label == each.label]
        found[each.label] = _write_result(unfinished, config, each, experiments[each.label], parts, len(questions))
    # 2.
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


def _write_result(
    folder: Path,
    config: RunConfig,
    each: ExperimentConfig,
    experiment: Experiment[Any],
    parts: list[Part],
    n_asked: int,
) -> dict[str, Any]:
    """Step 1 for one experiment, and what the summary says about it."""
    failures = [failure for part in parts for failure in part.failures]
    gathered = joined(experiment, parts, n_asked)
    without = undrawn = None
    try:
        result = experiment.result(gathered)
    except VideolensError as error:
        without = str(error)
        if len(failures) == n_asked:
            without = f"nothing but errors, {n_asked} of {n_asked} questions: {failures[0].message}"
    else:
        undrawn = _save(result, folder / each.label, figures=config.figures)
    left_out = Counter((skip.route, skip.reason) for part in parts for skip in part.skipped)
    return {
        "name": each.name,
        "asked": n_asked,
        "answered": sum(part.answered for part in parts),
        "rows": len(gathered.table),
        "left out": [{"route": route, "reason": why, "questions": n} for (route, why), n in left_out.items()],
        "failures": [asdict(failure) for failure in failures],
        "without": without,
        "undrawn": undrawn,
    }


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
