"""`videolens demo`: two models mapped on the same questions, and a page about them."""

from __future__ import annotations

import argparse

from videolens.commands.shared import BUNDLED, Commands, add_command, add_placing, quiet, say, tell


def add(commands: Commands) -> None:
    """Its options."""
    demo = add_command(
        commands,
        "demo",
        example="videolens demo --n 5 --out out/demo",
        help="map a video-tuned model and its image-only base, and write one page about it",
        description="Map two models on the same questions; write flow.csv, flow.parquet, figures and report.html.",
    )
    demo.add_argument("--out", default="out/demo", metavar="DIR", help="where to write (default: %(default)s)")
    demo.add_argument("--n", type=int, default=20, help="questions of each task to map (default: %(default)s)")
    demo.add_argument("--n-accuracy", type=int, default=40, help="questions of each task for accuracies (%(default)s)")
    demo.add_argument("--seed", type=int, default=0, help="of the questions (default: %(default)s)")
    demo.add_argument(
        "--split",
        default="test",
        choices=("train", "validation", "test"),
        help="which part of the questions (default: %(default)s)",
    )
    demo.add_argument("--model", default="shapes", help=f"the video-tuned model: {BUNDLED} (default: %(default)s)")
    demo.add_argument("--base", default="shapes-image", help="the image-only base (default: %(default)s)")
    add_placing(demo)
    demo.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the demonstration, and tell where the page is."""
    quiet()
    from videolens.pages.demo import run_demo
    from videolens.pages.demo_parts import DemoSettings

    settings = DemoSettings(
        model=options.model,
        base=options.base,
        n=options.n,
        n_accuracy=options.n_accuracy,
        seed=options.seed,
        split=options.split,
        dtype=options.dtype,
    )
    page = run_demo(options.out, settings, device=options.device, say=say)
    tell(f"{page}")
