"""What makes a run this run: a run is resumed only if all of it is as it was."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from videolens.errors import VideolensError
from videolens.experiments.common.provenance import versions
from videolens.question import Question
from videolens.runs.config import RunConfig, digest
from videolens.runs.directory import CONFIG, differences
from videolens.runs.fingerprint import model_fingerprint, question_digests

_LISTED = 6


def identity_of(config: RunConfig, questions: Sequence[Question]) -> dict[str, Any]:
    """Config, versions, digests of the model's files and of the questions: plain data.

    Raises:
        ModelError: there is no such checkpoint.
        DatasetError: a question without an id, or two with the same.
    """
    asked = question_digests(questions)
    model = model_fingerprint(
        config.model["name"],
        base=config.model.get("base"),
        revision=config.model.get("revision"),
        trust_remote_code=config.model["trust_remote_code"],
    )
    return {
        "config": config.plain(),
        "versions": versions() | {name: version(name) for name in ("numpy", "pandas", "pyarrow")},
        "model": model,
        "dataset": {"sha256": digest(asked), "questions": asked},
    }


def machine() -> str:
    """What computes, in a few words: numbers can differ in their last bits from machine to machine."""
    return " ".join((platform.node(), platform.system(), platform.machine(), _processor())).strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def check_config(directory: Path, there: Mapping[str, Any], config: RunConfig) -> None:
    """Refuse a directory that belongs to a run with another config: quick, before anything is loaded.

    Raises:
        VideolensError: names every field that differs.
    """
    if found := differences(there["identity"]["config"], config.plain()):
        raise VideolensError(
            f"{directory} holds a run with another config ({_first(found)}): give another directory, or resume it with "
            f"{directory / CONFIG}"
        )


def check_identity(directory: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Refuse to go on with another model, other questions, or other software than the run was begun with.

    Raises:
        VideolensError: says what has changed.
    """
    was = there["identity"]
    if was["model"] != here["model"]:
        found = differences(was["model"]["files"], here["model"]["files"])
        raise VideolensError(
            f"the model {here['config']['model']['name']!r} is not the one that the run in {directory} was begun with "
            f"({_first(found)}): give another directory"
        )
    if was["dataset"] != here["dataset"]:
        one, other = (
            {f"{q['task']} / {q['id']}": q["digest"] for q in side["dataset"]["questions"]} for side in (was, here)
        )
        changed = [f"{name} has changed" for name in one if name in other and one[name] != other[name]]
        gone = [f"{name} is gone" for name in one if name not in other]
        new = [f"{name} is new" for name in other if name not in one]
        found = [*changed, *gone, *new] or ["their order has changed"]
        raise VideolensError(
            f"the questions are not those that the run in {directory} was begun with ({_first(found)}): give another "
            "directory"
        )
    if found := differences(was["versions"], here["versions"]):
        raise VideolensError(
            f"the run in {directory} was begun with other versions ({_first(found)}), and one table should come from "
            "one software: install those, or give another directory"
        )


def _first(found: Sequence[str]) -> str:
    more = len(found) - _LISTED
    return "; ".join(found[:_LISTED]) + (f"; and {more} more" if more > 0 else "")
