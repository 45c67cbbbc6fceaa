"""`videolens run`: experiments over a data set, from a config, in a directory that survives anything."""

from __future__ import annotations

import argparse

from videolens.commands.shared import Commands, add_command, add_placing, quiet, say, tell


def add(commands: Commands) -> None:
    """Its options."""
    command = add_command(
        commands,
        "run",
        example="videolens run docs/run.yaml --out out/run",
        help="run the experiments of a config, and go on where an earlier run of it was interrupted",
        description="Ask every experiment of CONFIG every question. DIR holds the run: killed at any moment, the same "
        "command goes on where it was. Ends with 1 if an experiment has no result.",
    )
    command.add_argument("config", metavar="CONFIG", help="a YAML file: model, dataset, experiments (docs/runs.md)")
    command.add_argument("--out", required=True, metavar="DIR", help="the run's directory, new or of the same run")
    command.add_argument(
        "--missing",
        choices=("error", "report"),
        help="videos that are not there: one error for all of them, or their questions left out and listed (default: "
        "what the config says)",
    )
    command.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="ask in N processes, on Ray (pip install 'videolens[ray]'); on one machine results are the same bytes",
    )
    command.add_argument(
        "--ray", metavar="ADDRESS", help="a Ray cluster to join: host:port, or auto (default: one is started here)"
    )
    add_placing(command, device=None)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run it, and tell the summary and where the results are; 1 if an experiment has none."""
    quiet()
    from dataclasses import replace

    from videolens.runs import run as run_config
    from videolens.runs.config import placed, read_config

    config = read_config(options.config)
    if options.missing is not None:
        config = replace(config, dataset=config.dataset | {"missing": options.missing})
    config = placed(config, device=options.device, dtype=options.dtype)
    found = run_config(config, options.out, workers=options.workers, ray=options.ray, say=say)
    tell(f"{found}\n\n{found.path / 'results'}")
    return 1 if found.without else 0
