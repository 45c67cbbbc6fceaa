"""`videolens data`: a benchmark written to disk."""

from __future__ import annotations

import argparse

from videolens.commands.shared import Commands, add_command, tell


def add(commands: Commands) -> None:
    """Its options."""
    example = "videolens data shapes out/shapes --n 8 --task colour"
    data = add_command(commands, "data", example=example, help="write a benchmark to disk")
    kinds = data.add_subparsers(title="benchmarks", required=True, metavar="BENCHMARK")
    shapes = add_command(
        kinds,
        "shapes",
        example=example,
        help="the procedural benchmark, as mp4 files and questions in TVBench's layout",
        description="Write N questions of each task, each with its own clip: DIR/json/TASK.json and "
        "DIR/video/TASK/*.mp4.",
    )
    shapes.add_argument("directory", metavar="DIR", help="where to write")
    shapes.add_argument(
        "--n", type=int, default=100, metavar="PER_TASK", help="questions per task (default: %(default)s)"
    )
    shapes.add_argument("--seed", type=int, default=0, help="of the questions (default: %(default)s)")
    shapes.add_argument(
        "--split",
        default="test",
        choices=("train", "validation", "test"),
        help="which part of the questions (default: %(default)s)",
    )
    shapes.add_argument("--task", action="append", help="a task; once per task (default: all ten)")
    shapes.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Write the procedural benchmark."""
    from videolens.datasets.shapes import TASKS, write_shapes

    tasks = options.task or TASKS
    written = write_shapes(options.directory, n=options.n, seed=options.seed, split=options.split, tasks=tasks)
    tell(f"{written}: {options.n} questions of each of {len(tasks)} tasks, split {options.split}, seed {options.seed}")
