"""Train the bundled models from nothing: `python -m training.train --out runs/shapes`.

Three stages, each resumed where it was if the program is started again with the same `--out`:

1. *tower*: vision tower and projector on single frames, with linear heads that are thrown away;
2. *base*: decoder and projector on still clips, multiple choice and in words → the image-only base, `OUT/base`;
3. *tuned*: from the base, on the temporal tasks and some still clips → the video-tuned model, `OUT/tuned`.

`OUT/log.jsonl` gets the curves, `OUT/checkpoints/tuned-STEP` eight checkpoints along the last stage.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training import checkpoint, vocabulary
from training.data import Batch, Clips, Packer, make_clips
from training.heads import Weights
from training.language import Stage, accuracy, train
from training.precision import autocast
from training.tower import tower_features, train_tower
from videolens.datasets.shapes_tasks import TEMPORAL_TASKS

BASE = Stage("base", steps=1600, lr=1.2e-3, warmup=50, heads_until=0.97)
TUNED = Stage("tuned", steps=1800, batch=24, slots=5, lr=1.0e-3, words_first=0.4, heads=Weights(motion=0.5))


def main() -> None:
    """Run whatever of the three stages is not done yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/shapes"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--scale", type=float, default=1.0, help="multiply the number of clips and steps (for trials)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    run = Run(args.out, args.scale)
    run.tower()
    run.base()
    run.tuned()


class Run:
    """The three stages over one output directory."""

    def __init__(self, out: Path, scale: float = 1.0, seed: int = 0, **kind: Any):
        """`kind`: what `checkpoint.new_model` takes (depth, matching, decoder)."""
        self.out, self.scale = out, scale
        self.tokenizer = vocabulary.build()
        model = checkpoint.new_model(self.tokenizer, seed, **kind)
        self.model: Any = model.to("cuda" if torch.cuda.is_available() else "cpu")

    def log(self, **values: Any) -> None:
        """Append one line to the log."""
        line = json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()})
        with (self.out / "log.jsonl").open("a") as file:
            file.write(line + "\n")

    def count(self, n: int) -> int:
        return max(8, round(n * self.scale))

    def see(self, frames: np.ndarray) -> Tensor:
        """Features of uint8 frames under the frozen tower."""
        with torch.no_grad(), autocast(self.model.device):
            return torch.cat(
                [tower_features(self.model, part).float().cpu() for part in torch.from_numpy(frames).split(256)]
            )

    def clips(self, name: str, tasks: list[str], n: int, seed: int, split: str = "train") -> Clips:
        """Clips of a kind, from the output directory if they were made before."""
        path = self.out / f"clips-{name}.pt"
        if not path.exists():
            torch.save(make_clips(tasks, self.count(n), seed, self.see, split), path)
        clips: Clips = torch.load(path, weights_only=False)
        return clips

    def tower(self) -> None:
        path = self.out / "tower.pt"
        if not path.exists():
            train_tower(self.model, self.count(1500), self.log)
            torch.save(self.model.state_dict(), path)
        seeing = ("model.vision_tower.", "model.multi_modal_projector.")
        state = {k: v for k, v in torch.load(path).items() if k.startswith(seeing)}
        self.model.load_state_dict(state, strict=False)
        self.model.model.vision_tower.requires_grad_(False)

    def base(self) -> None:
        if not self._loaded("base"):
            stills = self.clips("stills", ["colour"], 24_000, seed=11)
            test = self.clips("stills-test", ["colour"], 256, seed=12, split="validation")
            places = dataclasses.replace(stills, asks=[[a for a in asks if a.task == "place"] for asks in stills.asks])
            words, place, one = (Packer(self.tokenizer, slots, n_frames=1) for slots in (2, 3, 4))
            eight = Packer(self.tokenizer, BASE.slots)

            def draw(rng: np.random.Generator, step: int) -> Batch:
                if step < BASE.words_first * BASE.steps:
                    return words.batch(stills, rng.integers(0, len(stills), 2 * BASE.batch), rng, letters=0.0)
                if step % 2:  # options of two words take longest to tell apart
                    return place.batch(places, rng.integers(0, len(places), 2 * BASE.batch), rng)
                packer = eight if step % 8 == 0 else one
                return packer.batch(stills, rng.integers(0, len(stills), BASE.batch), rng)

            self._train(BASE, draw, lambda: accuracy(self.model, test, eight))
            self._done("base")

    def tuned(self) -> None:
        if not self._loaded("tuned"):
            moving = self.clips("moving", list(TEMPORAL_TASKS), 30_000, seed=21)
            stills = self.clips("stills", ["colour"], 24_000, seed=11)
            test = self.clips("moving-test", list(TEMPORAL_TASKS), 320, seed=22, split="validation")
            words, packer = (Packer(self.tokenizer, slots) for slots in (2, TUNED.slots))

            def draw(rng: np.random.Generator, step: int) -> Batch:
                clips = stills if step % 8 == 7 else moving
                if step < TUNED.words_first * TUNED.steps and clips is moving:
                    return words.batch(moving, rng.integers(0, len(moving), TUNED.batch), rng, letters=0.0)
                return packer.batch(clips, rng.integers(0, len(clips), TUNED.batch), rng)

            self._train(TUNED, draw, lambda: accuracy(self.model, test, packer))
            self._done("tuned")

    def _train(self, stage: Stage, draw: Callable[..., Batch], test: Callable[[], dict[str, float]]) -> None:
        def keep(step: int) -> None:
            checkpoint.save(self.model, self.tokenizer, self.out / "checkpoints" / f"{stage.name}-{step:05d}")

        train(self.model, stage, draw, test, self.log, self.out / f"state-{stage.name}.pt", keep)

    def _loaded(self, name: str) -> bool:
        path = self.out / f"{name}.pt"
        if path.exists():
            self.model.load_state_dict(torch.load(path))
        return path.exists()

    def _done(self, name: str) -> None:
        torch.save(self.model.state_dict(), self.out / f"{name}.pt")
        shutil.rmtree(self.out / name, ignore_errors=True)
        checkpoint.save(self.model, self.tokenizer, self.out / name)


if __name__ == "__main__":
    main()
