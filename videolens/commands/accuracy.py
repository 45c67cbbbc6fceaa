"""`videolens accuracy`: models measured on the procedural benchmark."""

from __future__ import annotations

import argparse

from videolens.commands.shared import BUNDLED, Commands, add_command, add_placing, quiet, say, tell


def add(commands: Commands) -> None:
    """Its options."""
    accuracy = add_command(
        commands,
        "accuracy",
        example="videolens accuracy --model shapes --task colour --n 20",
        help="measure models on the procedural benchmark and print a table",
        description="Ask every model the same questions of every task, temporal ones also reversed, and print the "
        "share of right choices with 95 % intervals as a Markdown table.",
    )
    accuracy.add_argument("--model", action="append", help=f"{BUNDLED}; once per model (default: both bundled ones)")
    accuracy.add_argument("--n", type=int, default=200, help="questions per task (default: %(default)s)")
    accuracy.add_argument(
        "--split",
        default="test",
        choices=("train", "validation", "test"),
        help="which part of the questions (default: %(default)s)",
    )
    accuracy.add_argument("--seed", type=int, default=0, help="of the questions (default: %(default)s)")
    accuracy.add_argument("--task", action="append", help="a task; once per task (default: all ten)")
    accuracy.add_argument(
        "--condition",
        action="append",
        help="as is, reversed, shuffled, blank, or frozen K (frame K alone); once per condition, temporal tasks only "
        "(default: as is and reversed)",
    )
    accuracy.add_argument("--out", metavar="DIR", help="also write every single answer there")
    add_placing(accuracy)
    accuracy.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Measure, and tell the table."""
    quiet()
    from videolens.datasets.shapes import TASKS
    from videolens.model.checkpoints.files import short_name
    from videolens.model.loading import load
    from videolens.pages.shapes_accuracy import shapes_accuracy

    names = options.model or ["shapes", "shapes-image"]
    # a directory is called by its last part, unless two are called alike
    short = [short_name(name) for name in names]
    called = short if len(set(short)) == len(short) else names
    place = {"device": options.device, "dtype": options.dtype}
    models = {call: load(name, **place, say=say) for call, name in zip(called, names, strict=True)}
    result = shapes_accuracy(
        models,
        n=options.n,
        split=options.split,
        seed=options.seed,
        tasks=options.task or TASKS,
        conditions=options.condition or ("as is", "reversed"),
    )
    if options.out:
        result.save(options.out)
    tell(f"{result.markdown()}\n\nSplit {options.split}, seed {options.seed}.")
