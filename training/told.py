"""Clips that are told, not shown: sentences in the video's place, and the same questions about them.

A real VideoLLM's decoder could read before it saw anything. Ours learns here what language alone can teach it: to find
what the text says of the thing that is asked about, and the letter of the option that says the same.
"""

from __future__ import annotations

import numpy as np
import torch

from training.data import GRID, Clips, Packer
from videolens.datasets.shapes_tasks import MAKERS, TEMPORAL_TASKS, Ask

D_VISION = 64
N_TEXT = 40
"""Tokens in the video's place: four or five sentences."""


def make_told(packer: Packer, n: int, seed: int) -> Clips:
    """`n` texts, each about one or two scenes; nothing is drawn, so no clip of any split is seen."""
    rng = np.random.default_rng(seed)
    texts, asked = np.empty((n, N_TEXT), np.int64), []
    for row in range(n):
        found: dict[str, Ask] = {}
        for task in rng.permutation((*TEMPORAL_TASKS, "colour"))[: rng.integers(1, 3)]:
            for ask in MAKERS[task](rng)[1]:
                found.setdefault(ask.completion, ask)
        texts[row], asks = _tell(packer, [list(found.values())[i] for i in rng.permutation(len(found))])
        asked.append(asks)
    return Clips(
        torch.zeros(n, 0, GRID * GRID, D_VISION),
        torch.zeros(n, 2, 0, GRID * GRID, dtype=torch.int64),
        asked,
        [[] for _ in asked],
        ["told"] * n,
        torch.from_numpy(texts),
    )


def _tell(packer: Packer, asks: list[Ask]) -> tuple[list[int], list[Ask]]:
    """Sentences until the place is full, line ends before them; and the questions that they answer."""
    tokens: list[int] = []
    told = []
    for ask in asks:
        sentence = packer.encode(f" {ask.completion} {ask.answer}.")
        if len(tokens) + len(sentence) <= N_TEXT:
            tokens += sentence
            told.append(ask)
    return [packer.newline] * (N_TEXT - len(tokens)) + tokens, told
