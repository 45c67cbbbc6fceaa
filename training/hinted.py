"""Do the heads make the order? The recipe of `training/unhinted.py` with throw-away heads, at layers of one's choice.

`python -m training.hinted --out runs/ordinary --layers 2 4 5` puts them where the bundled pair had them, scaled to
eight layers; `--layers 5 4 2` turns their order round; without `--layers` there are none. All else is the same in all
three: the first weights, the clips, the batches, the number of steps. The heads' losses end at 70 % of the steps.

`--shuffled` is the control: the same words and the same frames, but the frames of every training clip come in an order
of their own, so that no answer about time is to be learnt from them. Validation clips stay as they are.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import torch

from training.data import Clips
from training.heads import LAYERS, Weights
from training.unhinted import MATCHING, SHOWN, Unhinted

STEPS = 2000


def shuffled(clips: Clips, seed: int) -> Clips:
    """The same clips, the frames of each in an order of its own; what had moved in a cell is no longer known (−100)."""
    rng = np.random.default_rng(seed)
    n, n_frames = clips.features.shape[:2]
    orders = torch.from_numpy(np.stack([rng.permutation(n_frames) for _ in range(n)]))
    features = torch.stack([clip[order] for clip, order in zip(clips.features, orders, strict=True)])
    return dataclasses.replace(clips, features=features, motion=torch.full_like(clips.motion, -100))


class Shuffled(Unhinted):
    """Both stages, with the frames of each training clip out of order."""

    def clips(self, name: str, tasks: list[str], n: int, seed: int, split: str = "train") -> Clips:
        """Clips of a kind, shuffled if they are to be learnt from."""
        clips = super().clips(name, tasks, n, seed, split)
        return shuffled(clips, seed) if split == "train" else clips


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
    parser.add_argument("--shuffled", action="store_true", help="the frames of training clips out of order")
    args = parser.parse_args()
    if args.shuffled and args.layers:
        parser.error("--shuffled has no heads: what they ask for is not in frames out of order; leave --layers out")
    if args.layers and not all(0 <= layer < args.depth for layer in args.layers):
        parser.error(f"--layers {args.layers}: the decoder has layers 0 to {args.depth - 1}")
    heads = Weights(motion=0.5, layers=dict(zip(LAYERS, args.layers, strict=True))) if args.layers else None
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    kind = Shuffled if args.shuffled else Unhinted
    run = kind(args.out, args.scale, args.seed, depth=args.depth, matching=MATCHING)
    run.tower()
    run.told()
    run.shown(dataclasses.replace(SHOWN, steps=args.steps, marks=args.steps // 100, heads=heads))


if __name__ == "__main__":
    main()
