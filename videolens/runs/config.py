"""What a run is made from: a YAML file or a mapping, checked completely before anything runs."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field

from videolens.datasets import load_dataset
from videolens.errors import VideolensError, near, utf8
from videolens.experiments import declared, in_runs
from videolens.model.checkpoints.placing import device_named
from videolens.reading import as_path, read_plain
from videolens.runs.checking import checked, fields_of, is_plain

DEFAULT_CHUNK = 4
"""Questions of one experiment that are asked before a part is written: what a kill costs, at most."""

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,99}")
_TAKEN = ("summary.json", "summary.md", "report.html")  # files that stand beside the folders of the experiments


@dataclass(frozen=True)
class ExperimentConfig:
    """An experiment of a run.

    Attributes:
        name: of its declaration.
        label: its folder's name in the run; the name itself, with a number where it would be there twice.
        options: keywords of the experiment's class, defaults filled in.
    """

    name: str
    label: str
    options: dict[str, Any]


@dataclass(frozen=True)
class RunConfig:
    """A config, resolved: nothing in it is left to a default that could change.

    Attributes:
        model: name, dtype, device, trust_remote_code, and base and revision if there are any, of
            `HookedVideoTransformer.from_pretrained`. What "auto" stands for here is in the place of it.
        dataset: keywords of `load_dataset`.
        experiments: in the order in which they are asked.
        seed: of whatever takes a seed and has none of its own here.
        chunk: questions of one experiment in a part.
        threads: of torch; None: as many as it has when the run begins.
        figures: whether results are drawn.
        where: what messages call it; not part of it.
    """

    model: dict[str, Any]
    dataset: dict[str, Any]
    experiments: tuple[ExperimentConfig, ...]
    seed: int = 0
    chunk: int = DEFAULT_CHUNK
    threads: int | None = None
    figures: bool = True
    where: str = "config"

    def plain(self) -> dict[str, Any]:
        """As plain data, which `read_config` reads back."""
        found = asdict(self)
        del found["where"]
        found["experiments"] = [{"name": e.name, "label": e.label} | e.options for e in self.experiments]
        return found

    def yaml(self) -> str:
        """As YAML, which `read_config` reads back."""
        return yaml.safe_dump(self.plain(), sort_keys=False, allow_unicode=True, width=120)


def digest(content: Any) -> str:
    """SHA-256 of plain data in one spelling."""
    spelled = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(utf8(spelled)).hexdigest()


def read_config(source: Mapping[str, Any] | str | Path | RunConfig) -> RunConfig:
    """Read and check a config.

    1. A file's text is YAML; a key that is there twice is an error, not the last one.
    2. Every field is known and of its kind; of the data set and of the experiments, by the signatures of
       `load_dataset` and of the experiments' classes.
    3. Defaults are filled in, and every experiment gets a label of its own.

    Args:
        source: a YAML file, the same as a mapping, or what this function gave.

    Raises:
        VideolensError: it cannot be read, or something in it is unknown, missing or of the wrong kind; the message
            names the file and the field.
    """
    if isinstance(source, RunConfig):
        return source
    # 1.
    if isinstance(source, Mapping):
        where, content = "config", source
    else:
        where, content = str(source), read_plain(as_path(source, "the config"))
    if not isinstance(content, Mapping):
        raise VideolensError(f"{where}: a run is a mapping with model, dataset and experiments, got {content!r}")
    try:
        is_data = is_plain(content)
    except RecursionError:
        raise VideolensError(f"{where}: something in it holds itself, by an alias: write it out") from None
    if not is_data:
        raise VideolensError(f"{where}: holds something else than text, numbers, true, false, null, lists and mappings")
    # 2.
    settings = checked(content, _Given, where=where, kind="field")
    model, dataset, listed = _named(settings.pop("model")), _named(settings.pop("dataset")), settings.pop("experiments")
    seed = settings["seed"]
    if model.get("dtype") is not None:
        model["dtype"] = str(model["dtype"]).removeprefix("torch.")
    model = _resolved(checked(model, _Model, where=f"{where}.model", kind="field"))
    dataset = checked(_seeded(dataset, load_dataset, seed), load_dataset, where=f"{where}.dataset", kind="field")
    # 3.
    return RunConfig(model, dataset, _experiments(listed, seed, where), **settings, where=where)


def most_threads() -> int:
    """As many threads as torch is given at most: more than that slow a machine down, and far more bring it down."""
    return max(64, 4 * (os.cpu_count() or 1))


_Threads = Annotated[
    int, Field(ge=1, le=most_threads(), description=f"a whole number from 1 to {most_threads()}, for this machine")
]
_Counted = Annotated[int, Field(ge=1, description="a whole number from 1 on")]


@dataclass(frozen=True)
class _Given:
    """The fields of a config: their names, kinds and defaults."""

    model: str | dict[str, Any]
    dataset: str | dict[str, Any]
    experiments: list[str | dict[str, Any]]
    seed: int = 0
    chunk: _Counted = DEFAULT_CHUNK
    threads: _Threads | None = None
    figures: bool = True


@dataclass(frozen=True)
class _Model:
    """The fields of `model`."""

    name: str
    dtype: str | None = None
    device: str = "cpu"
    base: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False


def _resolved(model: dict[str, Any]) -> dict[str, Any]:
    """With the device that "auto" is on this machine: a run goes on on the kind of device that it was begun on."""
    if model["device"] == "auto":
        model["device"] = str(device_named("auto"))
    return {name: value for name, value in model.items() if name not in ("base", "revision") or value is not None}


def placed(config: RunConfig, *, device: str | None = None, dtype: str | None = None) -> RunConfig:
    """The config with another device or dtype, where they are given."""
    given = {name: value for name, value in (("device", device), ("dtype", dtype)) if value is not None}
    return replace(config, model=_resolved(config.model | given))


def _named(given: str | dict[str, Any]) -> dict[str, Any]:
    return {"name": given} if isinstance(given, str) else dict(given)


def _seeded(given: Mapping[str, Any], function: Any, seed: int) -> dict[str, Any]:
    """With the run's seed where a seed is taken and none is given."""
    return ({"seed": seed} if "seed" in fields_of(function).model_fields else {}) | dict(given)


def _experiments(listed: list[Any], seed: int, where: str) -> tuple[ExperimentConfig, ...]:
    if not listed:
        raise VideolensError(f"{where}.experiments: is empty; give at least one of {', '.join(in_runs())}")
    given = [_named(each) for each in listed]
    names = [each.pop("name", None) for each in given]
    for i, name in enumerate(names):
        if not isinstance(name, str):
            wrong = "the field 'name' is missing" if name is None else f"the field 'name' is {name!r}, which is no text"
            raise VideolensError(f"{where}.experiments[{i}]: {wrong}: give name: one of {', '.join(in_runs())}")
    times, seen = Counter(names), Counter[Any]()
    found: list[ExperimentConfig] = []
    for i, (name, options) in enumerate(zip(names, given, strict=True)):
        at = f"{where}.experiments[{i}]"
        if name not in in_runs():
            raise VideolensError(f"{at}.name: {near(name, in_runs(), kind='experiment')}")
        seen[name] += 1
        label = options.pop("label", f"{name} {seen[name]}" if times[name] > 1 else name)
        if not isinstance(label, str) or not _LABEL.fullmatch(label) or label.casefold() in _TAKEN:
            raise VideolensError(
                f"{at}.label: {label!r} cannot be a folder's name here: at most 100 letters, digits, blanks, '.', '_' "
                f"and '-', a letter or digit first, and none of {', '.join(_TAKEN)}"
            )
        if label.casefold() in (other.label.casefold() for other in found):
            raise VideolensError(f"{at}.label: {label!r} is there twice: give every experiment its own label: …")
        kind = declared(name).experiment_class
        options = checked(
            _seeded(options, kind, seed), kind, without=("model",), where=at, kind=f"option of the experiment {name!r}"
        )
        found.append(ExperimentConfig(name, label, options))
    return tuple(found)
