"""Train a model without hints: answers alone, no head and no loss at any inner layer.

`python -m training.unhinted --out runs/unhinted --depth 8 --seed 1`, resumed where it was if started again. The tower
and the projector it begins with are the bundled model's, the decoder is new. Two stages:

1. *told*: questions about sentences (`training/told.py`), first in words, then as letters;
2. *shown*: the same questions about clips: still ones in words, then temporal ones in words, then letters.

`OUT/log.jsonl` gets the curves, `OUT/checkpoints/STAGE-STEP` checkpoints along the way, `OUT/shown` the model.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from transformers import LlavaNextVideoForConditionalGeneration

from training.data import Batch, Clips, Packer
from training.language import Stage, accuracy
from training.told import N_TEXT, make_told
from training.train import Run
from videolens.datasets.shapes_tasks import TEMPORAL_TASKS
from videolens.model.checkpoints.bundled import bundled_path

TOLD = Stage(
    "told", steps=200, batch=16, parts=2, slots=2, lr=1.5e-3, muon=3e-3, heads=None, words_first=0.6, decay_from=0.8
)
SHOWN = Stage(
    "shown",
    steps=2600,
    batch=12,
    parts=2,
    slots=3,
    lr=1.2e-3,
    muon=3e-3,
    heads=None,
    words_first=0.58,
    decay_from=0.85,
    marks=26,
)
MATCHING = 0.9
"""How alike keys and queries begin in half of the heads, in all layers alike."""
ALOUD = 0.5
"""Share of the letters that follow the answer in words."""
DIRECTIONS_FIRST = 0.385
"""Until this share of it, it asks of the first four frames which way a thing goes, in words; then, one time in three,
which way round."""
STILLS_FIRST = 0.043
"""Share of the second stage that shows still clips alone."""


def first_half(clips: Clips, tasks: Collection[str]) -> Clips:
    """The clips of these tasks, and of their questions what four frames tell: nothing about the last half."""
    rows = [i for i, task in enumerate(clips.task) if task in tasks]
    asks = [[ask for ask in clips.asks[i] if "last" not in ask.stem] for i in rows]
    return Clips(clips.features[rows], clips.motion[rows], asks, [[] for _ in rows], [clips.task[i] for i in rows])


class Unhinted(Run):
    """Both stages over one output directory."""

    def tower(self) -> None:
        """The bundled model's tower and projector: what stands before the decoder."""
        source = LlavaNextVideoForConditionalGeneration.from_pretrained(bundled_path("shapes")).model
        self.model.model.vision_tower.load_state_dict(source.vision_tower.state_dict())
        self.model.model.multi_modal_projector.load_state_dict(source.multi_modal_projector.state_dict())
        self.model.model.vision_tower.requires_grad_(False)

    def told(self) -> None:
        """Stage 1."""
        if not self._loaded("told"):
            packer = Packer(self.tokenizer, TOLD.slots, n_frames=0, n_text=N_TEXT, aloud=ALOUD)
            texts, test = make_told(packer, self.count(20_000), 31), make_told(packer, 256, 32)

            def draw(rng: np.random.Generator, step: int) -> Batch:
                letters = float(step >= TOLD.words_first * TOLD.steps)
                return packer.batch(texts, rng.integers(0, len(texts), TOLD.batch), rng, letters, flip=False)

            self._train(TOLD, draw, lambda: accuracy(self.model, test, packer))
            self._done("told")

    def shown(self, stage: Stage) -> None:
        """Stage 2."""
        steps = stage.steps
        if self._loaded("shown"):
            return
        reader = Packer(self.tokenizer, TOLD.slots, n_frames=0, n_text=N_TEXT, aloud=ALOUD)
        texts = make_told(reader, self.count(20_000), 31)
        stills = self.clips("stills", ["colour"], 8_000, seed=11)
        moving = self.clips("moving", list(TEMPORAL_TASKS), 16_000, seed=21)
        test = self.clips("moving-test-small", list(TEMPORAL_TASKS), 160, seed=22, split="validation")
        directions = first_half(moving, ("moving direction", "action sequence"))
        circles = first_half(moving, ("action antonym",))
        four = Packer(self.tokenizer, 1, n_frames=4, n_slot=22)
        one, words = (Packer(self.tokenizer, *n) for n in ((2, 1), (1, 8)))
        packer = Packer(self.tokenizer, stage.slots, aloud=ALOUD)

        def draw(rng: np.random.Generator, step: int) -> Batch:
            done = step / steps
            letters = float(done >= stage.words_first)
            if step % 16 == 1:
                return reader.batch(texts, rng.integers(0, len(texts), TOLD.batch), rng, 1.0, flip=False)
            if done < STILLS_FIRST or step % 16 == 9:
                return one.batch(stills, rng.integers(0, len(stills), 16), rng, letters)
            if done < DIRECTIONS_FIRST or (step % 3 == 0 and not letters):
                few = directions if done < DIRECTIONS_FIRST else circles
                return four.batch(few, rng.integers(0, len(few), 2 * stage.batch), rng, 0.0)
            use = packer if letters else words
            return use.batch(moving, rng.integers(0, len(moving), stage.batch), rng, letters)

        told = make_told(reader, 64, 32)

        def test_both() -> dict[str, float]:
            read = accuracy(self.model, told, reader)
            return accuracy(self.model, test, packer) | {f"told {name}": share for name, share in read.items()}

        self._train(stage, draw, test_both)
        self._done("shown")


def main() -> None:
    """Run whatever of the two stages is not done yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/unhinted"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--scale", type=float, default=1.0, help="multiply the number of clips (for trials)")
    parser.add_argument("--depth", type=int, default=8, help="decoder layers")
    parser.add_argument("--decoder", choices=("llama", "qwen3"), default="llama")
    parser.add_argument("--seed", type=int, default=1, help="of the decoder's first weights")
    parser.add_argument("--steps", type=int, default=SHOWN.steps, help="of the second stage")
    parser.add_argument("--parts", type=int, default=SHOWN.parts, help="batches a step, in the second stage")
    parser.add_argument("--batch", type=int, default=SHOWN.batch, help="clips of a batch, in the second stage")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    run = Unhinted(args.out, args.scale, args.seed, depth=args.depth, matching=MATCHING, decoder=args.decoder)
    run.tower()
    run.told()
    run.shown(dataclasses.replace(SHOWN, steps=args.steps, parts=args.parts, batch=args.batch))


if __name__ == "__main__":
    main()
