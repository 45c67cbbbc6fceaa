"""Linear heads for training alone: each asks the residual stream, at one layer, for a step on the way to the answer.

A letter is the end of a chain (see what moved, say it in words, find the option that says so, name its letter), and
with nothing but the letter to learn from, a small decoder stays at chance for thousands of steps. So each link is
asked for where it can be known: what the thing in a cell has just done, at the video tokens; the answer in words, at
the question mark; whether this option is true, at the option's last token. The heads are thrown away and their losses
switched off before the end of a stage. They do suggest to the model *where* things happen, which the docs say
wherever flow in this model is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.data import MOTIONS, Batch

LAYERS = {"motion": 4, "answer": 6, "truth": 8}
"""Head → the decoder layer (0-based) whose output it reads, in the bundled pair."""


@dataclass(frozen=True)
class Weights:
    """Weights of the heads' losses beside that of the answers, and the layers that the heads read."""

    motion: float = 0.0
    answer: float = 0.5
    truth: float = 0.5
    layers: Mapping[str, int] = field(default_factory=lambda: LAYERS)


class Heads(nn.Module):
    """The heads and their losses."""

    def __init__(self, d_model: int, d_vocab: int):
        super().__init__()
        self.motion, self.truth = nn.Linear(d_model, len(MOTIONS)), nn.Linear(d_model, 1)
        self.first, self.last = nn.Linear(d_model, d_vocab), nn.Linear(d_model, d_vocab)

    def losses(self, residual: dict[int, Tensor], batch: Batch, weights: Weights) -> dict[str, Tensor]:
        """Weighted losses by head, from the residual after each layer [batch pos d_model]."""
        out = {}
        target = batch.motion.flatten()
        if weights.motion and (target > 0).any():  # nothing has moved yet in a first frame, or where a clip is told
            video = residual[weights.layers["motion"]][:, batch.video]
            each = F.cross_entropy(
                self.motion(video.float()).flatten(0, 1), target, ignore_index=-100, reduction="none"
            )
            # most cells hold nothing: those that hold something count for most
            out["motion"] = weights.motion * (each[target > 0].mean() + 0.2 * each.mean())
        if weights.answer:
            rows, positions = batch.asked_at.unbind(1)
            mark = residual[weights.layers["answer"]][rows, positions].float()
            words = [F.cross_entropy(head(mark), batch.asked[:, i]) for i, head in enumerate((self.first, self.last))]
            out["answer"] = weights.answer * torch.stack(words).mean()
        if weights.truth and len(batch.option_at):
            rows, positions = batch.option_at.unbind(1)
            logits = self.truth(residual[weights.layers["truth"]][rows, positions].float())[:, 0]
            out["truth"] = weights.truth * F.binary_cross_entropy_with_logits(
                logits, batch.option_true, pos_weight=torch.tensor(2.0, device=logits.device)
            )
        return out
