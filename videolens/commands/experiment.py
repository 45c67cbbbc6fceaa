"""`videolens EXPERIMENT`, for every declared experiment without a command of its own: a run with that one."""

from __future__ import annotations

import argparse
from functools import partial
from importlib import import_module
from typing import Any

from videolens.commands.shared import BUNDLED, Commands, add_command, add_placing, quiet, say, tell
from videolens.errors import VideolensError
from videolens.experiments import declared, in_runs


def add(commands: Commands) -> None:
    """A command for each; those that are there already stay as they are."""
    for name in in_runs():
        if name in commands.choices:
            continue
        dashed = name.replace("_", "-")
        short = declared(name).short or dashed
        example = f'videolens {short} --model shapes --dataset shapes --task "moving direction" --n 4 --out out/{short}'
        if more := declared(name).example:
            example += f" \\\n  {more}"
        about = (import_module(f"videolens.experiments.{name}").__doc__ or "").partition("\n")[0]
        one = add_command(
            commands,
            name,
            example=example,
            aliases=list(dict.fromkeys(each for each in (dashed, short) if each != name)),
            help=(about[:1].lower() + about[1:].rstrip(".")).replace("%", "%%"),
            description=f"{about} DIR holds a run: killed at any moment, the same command goes on where it "
            "was. Ends with 1 if there is no result.",
        )
        one.add_argument("--model", required=True, help=BUNDLED)
        one.add_argument("--dataset", required=True, help="a benchmark's name, or its directory (docs/datasets.md)")
        one.add_argument("--task", action="append", help="a task; once per task (default: what the data set takes)")
        one.add_argument("--split", default="test", help="which part of the data set (default: %(default)s)")
        one.add_argument("--n", type=int, help="questions per task (default: what the data set takes)")
        one.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="OPTION=VALUE",
            help="an option of the experiment, its value as YAML: samples=all, 'layers=[0, 1]', …; once per option",
        )
        one.add_argument("--out", required=True, metavar="DIR", help="the run's directory, new or of the same run")
        add_placing(one)
        one.set_defaults(run=partial(run, name))


def run(name: str, options: argparse.Namespace) -> int:
    """Run it, and tell the summary and where the results are; 1 if there is none."""
    quiet()
    from videolens.runs import run as run_config

    dataset = {"name": options.dataset, "tasks": options.task, "split": options.split, "n": options.n}
    settings = dict(option(text) for text in options.set)
    model = {"name": options.model, "device": options.device, "dtype": options.dtype}
    config = {"model": model, "dataset": dataset, "experiments": [settings | {"name": name}]}
    found = run_config(config, options.out, say=say)
    tell(f"{found}\n\n{found.path / 'results'}")
    return 1 if found.without else 0


def option(text: str) -> tuple[str, Any]:
    """Name and value of `--set`.

    Raises:
        VideolensError: it is not of the form OPTION=VALUE, or the value is not YAML.
    """
    from videolens.reading import parse_yaml

    name, equals, value = text.partition("=")
    if not (equals and name.strip()):
        raise VideolensError(f"--set {text!r}: give OPTION=VALUE, such as samples=all")
    return name.strip(), parse_yaml(value, where=f"--set {text!r}: the value")
