"""Train a model without hints: no head, and no loss, at any inner layer.

`python -m training.unhinted --out runs/unhinted --depth 8 --seed 1`
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlavaNextVideoForConditionalGeneration

from training import checkpoint
from training.data import Batch, Packer
from training.language import Stage, accuracy
from training.told import N_TEXT, make_told
from training.train import Run
from videolens.datasets.shapes_tasks import TEMPORAL_TASKS
from videolens.model.checkpoints.bundled import bundled_path

TOLD = Stage("told", steps=1200, batch=32, slots=2, lr=1.5e-3, muon=2e-3, heads=None, words_first=0.2, decay_from=1.0)


class Unhinted(Run):
    def tower(self) -> None:
        """Tower and projector of the bundled model: what stands before the decoder."""
        source = LlavaNextVideoForConditionalGeneration.from_pretrained(bundled_path("shapes")).model
        self.model.model.vision_tower.load_state_dict(source.vision_tower.state_dict())
        self.model.model.multi_modal_projector.load_state_dict(source.multi_modal_projector.state_dict())
        self.model.model.vision_tower.requires_grad_(False)

    def told(self) -> None:
        if not self._loaded("told"):
            packer = Packer(self.tokenizer, TOLD.slots, n_frames=0, n_text=N_TEXT)
            texts, test = make_told(packer, self.count(20_000), 31), make_told(packer, 256, 32)

            def draw(rng: np.random.Generator, step: int) -> Batch:
                letters = float(step >= TOLD.words_first * TOLD.steps)
                return packer.batch(texts, rng.integers(0, len(texts), TOLD.batch), rng, letters, flip=False)

            self._train(TOLD, draw, lambda: accuracy(self.model, test, packer))
            self._done("told")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/unhinted"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--scale", type=float, default=1.0, help="multiply the number of clips and steps (for trials)")
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    run = Unhinted(args.out, args.scale, args.seed, args.depth)
    run.tower()
    run.told()


if __name__ == "__main__":
    main()
