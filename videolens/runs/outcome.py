"""What a finished run has to show: results, and a summary that counts every question."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from videolens.errors import VideolensError, near, utf8
from videolens.experiments import declared
from videolens.experiments.common.experiment import Experiment, Gathered
from videolens.question import Question
from videolens.reading import Fields, as_path, fields_from, read_json
from videolens.runs.config import ExperimentConfig, RunConfig
from videolens.runs.directory import MANIFEST, REPORT, RESULTS, SUMMARY
from videolens.runs.parts import Part, joined
from videolens.runs.report import report, section_of
from videolens.runs.summary import spelled
from videolens.runs.writing import LEFTOVER, commit_directory


class _Told(Fields):
    name: str
    without: str | None
    failures: list[dict[str, Any]]


class _Summary(Fields):
    """What is read of a summary."""

    experiments: dict[str, _Told]


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
        path = as_path(path, "the directory")
        if not (path / MANIFEST).is_file():
            raise VideolensError(f"{path} holds no run: give the directory that `run` wrote to")
        summary = path / RESULTS / SUMMARY
        if not summary.is_file():
            raise VideolensError(f"the run in {path} is not finished: run it again with the same config, it goes on")
        try:
            found = read_json(summary, finite=False, halves=True)
            fields_from(_Summary, found, "")
        except VideolensError as error:
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

    1. Per experiment: join its parts, save result, summary and figure into a folder of its label, and draw its section
       of the page. One that has nothing to show says why.
    2. Write the summary, as JSON and for people, and the page, and give the folder its name.

    Nothing in it says when or how fast it was made, so that a run that was resumed gives the same files.
    """
    unfinished = path / f"{LEFTOVER}{RESULTS}"
    unfinished.mkdir()
    # 1.
    found: dict[str, Any] = {}
    sections: dict[str, Markup] = {}
    for each in config.experiments:
        parts = [part for (label, _), part in sorted(done.items()) if label == each.label]
        gathered = joined(experiments[each.label], parts, len(questions))
        found[each.label] = _about(each, parts, gathered)
        try:
            result = experiments[each.label].result(gathered)
        except Exception as error:  # whatever it is: the other experiments have theirs
            found[each.label]["without"] = _why(error, parts, len(questions))
            continue
        _save(result, unfinished / each.label)
        if config.figures:
            section, wrong = _draw(each, result, unfinished / each.label)
            sections |= {} if section is None else {each.label: section}
            found[each.label]["undrawn"] = wrong
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
    (unfinished / SUMMARY).write_bytes(utf8(json.dumps(summary, indent=2, ensure_ascii=False) + "\n"))
    (unfinished / "summary.md").write_bytes(utf8(spelled(summary) + "\n"))
    if config.figures:
        (unfinished / REPORT).write_bytes(utf8(report(summary, sections)))
    commit_directory(unfinished, path / RESULTS)


def _about(each: ExperimentConfig, parts: Sequence[Part], gathered: Gathered) -> dict[str, Any]:
    """What the summary says about an experiment."""
    left_out = Counter((skip.route, skip.reason) for part in parts for skip in part.skipped)
    return {
        "name": each.name,
        "asked": gathered.n_asked,
        "answered": sum(part.answered for part in parts),
        "rows": len(gathered.table),
        "left out": [{"route": route, "reason": why, "questions": n} for (route, why), n in left_out.items()],
        "failures": [asdict(failure) for part in parts for failure in part.failures],
        "without": None,
        "undrawn": None,
    }


def _why(error: Exception, parts: Sequence[Part], n_asked: int) -> str:
    """Why there is no result."""
    failures = [failure for part in parts for failure in part.failures]
    if len(failures) < n_asked:
        return str(error) if isinstance(error, VideolensError) else f"{type(error).__name__}: {error}"
    return f"nothing but errors, {n_asked} of {n_asked} questions: {failures[0].message}"


def _save(result: Any, folder: Path) -> None:
    """Save a result, and its summary where there is one."""
    result.save(folder)
    if callable(summary := getattr(result, "summary", None)) and isinstance(found := summary(), pd.DataFrame):
        found.to_csv(folder / "summary.csv", index=False)


def _draw(each: ExperimentConfig, result: Any, folder: Path) -> tuple[Markup | None, str | None]:
    """Draw the figure into the folder; the section of the page, and what went wrong with either."""
    wrong: dict[str, str] = {}
    section = None
    # whatever goes wrong in drawing: a table that took days must not wait for its picture
    try:
        result.figure().savefig(folder / "figure.png", dpi=200)
    except Exception as error:
        (folder / "figure.png").unlink(missing_ok=True)
        wrong["figure"] = f"{type(error).__name__}: {error}"
    try:
        section = section_of(each.name, result)
    except Exception as error:
        wrong["section"] = f"{type(error).__name__}: {error}"
    return section, "; ".join(f"{name}: {text}" for name, text in wrong.items()) or None
