"""`videolens plan`: what a run will take, before anything is downloaded."""

from __future__ import annotations

import argparse

from videolens.commands.shared import Commands, add_command, add_placing, quiet, size, tell


def add(commands: Commands) -> None:
    """Its options."""
    plan = add_command(
        commands,
        "plan",
        example="videolens plan docs/run.yaml --device-memory 24G",
        help="tell what a run would take: memory, and forwards per question of each experiment",
        description="From the model's config.json alone: bytes of its weights, what is left of the device's memory, "
        "what the engine will use of it, and forwards per question of every experiment, beside those of the published "
        "procedure. Nothing is downloaded, no weight is read. Ends with 1 if it does not fit.",
    )
    plan.add_argument("config", metavar="CONFIG", help="of a run: a YAML file (docs/runs.md)")
    plan.add_argument(
        "--model",
        metavar="PATH",
        help="a directory with the model's config.json, or that file (default: where the config says)",
    )
    plan.add_argument(
        "--device-memory",
        type=size,
        metavar="BYTES",
        help="memory of the device, such as 24G (default: what is free on the config's device, here)",
    )
    plan.add_argument(
        "--per-task",
        type=int,
        default=1,
        metavar="N",
        help="questions of each task whose prompts are laid out; the dearest counts (default: %(default)s)",
    )
    add_placing(plan, device=None)
    plan.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Tell it; 1 if it does not fit."""
    quiet()
    from videolens.runs.config import placed, read_config
    from videolens.runs.foreseen import foresee_run

    config = placed(read_config(options.config), device=options.device, dtype=options.dtype)
    found = foresee_run(config, model=options.model, device_memory=options.device_memory, per_task=options.per_task)
    tell(str(found))
    return 0 if found.fits else 1
