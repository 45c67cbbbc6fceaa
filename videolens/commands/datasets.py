"""`videolens datasets`: the benchmarks whose layouts are read, and what lies where in them."""

from __future__ import annotations

import argparse

from videolens.commands.shared import Commands, add_command, tell


def add(commands: Commands) -> None:
    """Its options."""
    datasets = add_command(
        commands,
        "datasets",
        example="videolens datasets",
        help="list the benchmarks that are known, with what lies where",
        description="Benchmarks by the name that load_dataset and `dataset:` in a config take. Each but the procedural "
        "one lies in a directory of yours, which is also known by its looks.",
    )
    datasets.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print what is known."""
    from videolens.datasets.benchmark import known_benchmarks

    for name, benchmark in known_benchmarks().items():
        where = f"a directory with {benchmark.looks}" if benchmark.looks else "made here, and kept in the cache"
        tell(f"{name}: {where}")
