"""`videolens check`: a checkpoint as it runs here, compared with the original."""

from __future__ import annotations

import argparse

from videolens.commands.shared import BUNDLED, Commands, add_command, quiet, tell


def add(commands: Commands) -> None:
    """Its options."""
    check = add_command(
        commands,
        "check",
        example="videolens check shapes --n-frames 4",
        help="compare a checkpoint as it runs here with the original in transformers",
        description="Load a checkpoint both ways, one after the other, ask one question about one clip, and print how "
        "far pixels, residuals and logits are apart. Ends with 1 if they are further apart than rounding explains.",
    )
    check.add_argument("model", metavar="MODEL", help=BUNDLED)
    check.add_argument("--base", metavar="MODEL", help="what an adapter is for (default: what it names)")
    check.add_argument("--video", metavar="FILE", help="a clip (default: a square that moves)")
    check.add_argument("--n-frames", type=int, default=8, help="frames to sample of it (default: %(default)s)")
    check.add_argument(
        "--dtype",
        default="float32",
        choices=("float32", "bfloat16", "float16"),
        help="of both; half precision takes half the memory and proves less (default: %(default)s)",
    )
    check.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Compare; 1 if they are further apart than rounding explains."""
    quiet()
    import torch

    from videolens.model.checkpoints.check import check_model, default_clip
    from videolens.video.video import Video

    video = (
        Video.from_file(options.video, n_frames=options.n_frames) if options.video else default_clip(options.n_frames)
    )
    found = check_model(options.model, video=video, dtype=getattr(torch, options.dtype), base=options.base)
    tell(f"{found.markdown()}\n\n{'passed' if found.passed else 'FAILED: see the lines marked “too far”'}")
    return 0 if found.passed else 1
