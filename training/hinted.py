"""Do the heads make the order? The recipe of `training/unhinted.py` with throw-away heads, at layers of one's choice.

`python -m training.hinted --out runs/ordinary --layers 2 4 5` puts them where the bundled pair had them, scaled to
eight layers; `--layers 5 4 2` turns their order round; without `--layers` there are none. All else is the same in all
three: the first weights, the clips, the batches, the number of steps. The heads' losses end at 70 % of the steps.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch

from training.heads import LAYERS, Weights
from training.unhinted import MATCHING, SHOWN, Unhinted

STEPS = 2000


def main() -> None:
    """Run whatever of the two stages is not done yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/hinted"))
    parser.add_argument("--layers", type=int, nargs=3, metavar=tuple(LAYERS), help="that the heads read (0-based)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--scale", type=float, default=1.0, help="multiply the number of clips (for trials)")
    parser.add_argument("--depth", type=int, default=8, help="decoder layers")
    parser.add_argument("--seed", type=int, default=3, help="of the decoder's first weights")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the second stage")
    args = parser.parse_args()
    if args.layers and not all(0 <= layer < args.depth for layer in args.layers):
        parser.error(f"--layers {args.layers}: the decoder has layers 0 to {args.depth - 1}")
    heads = Weights(motion=0.5, layers=dict(zip(LAYERS, args.layers, strict=True))) if args.layers else None
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    run = Unhinted(args.out, args.scale, args.seed, depth=args.depth, matching=MATCHING)
    run.tower()
    run.told()
    run.shown(dataclasses.replace(SHOWN, steps=args.steps, marks=args.steps // 100, heads=heads))


if __name__ == "__main__":
    main()
