"""Stage 0: teach the vision tower to see single frames, with linear heads that are thrown away.

Real VideoLLMs start from a pretrained tower; this is ours. Every pooled token is asked, through the projector, what
    lies in its
cell: colour, shape and place (to two pixels) of the thing whose centre is there, if any, and the background.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.data import GRID, as_decoded, make_scene
from training.precision import autocast
from videolens.datasets.shapes_tasks import STILL_TASKS, TASKS
from videolens.datasets.shapes_world import BACKGROUNDS, COLOURS, SHAPES, SIZE, render

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])
HEADS = {"colour": len(COLOURS) + 1, "shape": len(SHAPES) + 1, "x": 8, "y": 8, "background": len(BACKGROUNDS)}


def pixels(frames: Tensor) -> Tensor:
    """uint8 [frame h w c] → normalised float [frame c h w]."""
    return ((frames.float() / 255 - MEAN) / STD).permute(0, 3, 1, 2).contiguous()


def tower_features(model: Any, frames: Tensor) -> Tensor:
    """What the projector is given: [frame cell d_vision], pooled to the grid."""
    tower = model.model.vision_tower
    hidden = tower.pre_layrnorm(tower.embeddings(pixels(frames).to(model.device)))
    for layer in tower.encoder.layers[: model.config.vision_feature_layer + 1]:
        hidden = layer(hidden, None)
    return model.model.vision_resampler(hidden[:, 1:])


def labelled_frames(n: int, seed: int, split: str = "train") -> tuple[Tensor, dict[str, Tensor]]:
    """Single frames from all kinds of clips, with what lies in every cell (-100 where nothing can be said)."""
    rng = np.random.default_rng(seed)
    frames = np.empty((n, SIZE, SIZE, 3), np.uint8)
    labels = {name: np.full((n, GRID * GRID), -100) for name in HEADS}
    labels["colour"][:], labels["shape"][:] = 0, 0
    side = SIZE / GRID
    i = 0
    while i < n:
        task = TASKS[i % len(TASKS)]
        scene, _ = make_scene(task, rng, split)
        index = rng.permutation(scene.n_frames)[: 1 if task in STILL_TASKS else 2]
        for frame, image in zip(index, as_decoded(render(scene, index), rng), strict=True):
            if i == n:
                break
            frames[i] = image
            labels["background"][i] = list(BACKGROUNDS).index(scene.backgrounds[frame])
            for thing in scene.things:
                x, y = thing.path[frame]
                cell = int(y // side) * GRID + int(x // side)
                labels["colour"][i, cell] = 1 + list(COLOURS).index(thing.colour)
                labels["shape"][i, cell] = 1 + SHAPES.index(thing.shape)
                labels["x"][i, cell] = int(x % side / side * 8)
                labels["y"][i, cell] = int(y % side / side * 8)
            i += 1
    return torch.from_numpy(frames), {k: torch.from_numpy(v) for k, v in labels.items()}


def train_tower(model: Any, steps: int, log: Any, n_frames: int = 40_000, batch: int = 256, lr: float = 2.5e-3) -> None:
    """Train tower and projector in place."""
    frames, labels = labelled_frames(n_frames, seed=1)
    test_frames, test_labels = labelled_frames(1024, seed=2, split="validation")
    heads = nn.ModuleDict({name: nn.Linear(model.config.text_config.hidden_size, n) for name, n in HEADS.items()}).to(
        model.device
    )
    inner = model.model
    parameters = [*inner.vision_tower.parameters(), *inner.multi_modal_projector.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.98), weight_decay=0.02, fused=True)
    rng = np.random.default_rng(3)
    start = time.time()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 100, 3 * (1 - step / steps) + 0.02)
        rows = torch.from_numpy(rng.integers(0, n_frames, batch))
        loss, _ = _loss(model, heads, frames[rows], {k: v[rows] for k, v in labels.items()})
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 100 == 99 or step == steps - 1:
            with torch.no_grad():
                _, right = _loss(model, heads, test_frames, test_labels)
            log(stage="tower", step=step + 1, loss=float(loss.detach()), seconds=time.time() - start, **right)


def _loss(model: Any, heads: Any, frames: Tensor, labels: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    with autocast(model.device):
        tokens = model.model.multi_modal_projector(tower_features(model, frames))
        logits = {name: head(tokens).float() for name, head in heads.items()}
    losses, right = [], {}
    for name, label in labels.items():
        label = label.to(model.device)
        losses.append(F.cross_entropy(logits[name].flatten(0, 1), label.flatten(), ignore_index=-100))
        here = label > 0 if name in ("colour", "shape") else label >= 0
        right[name] = float((logits[name].argmax(-1) == label)[here].float().mean())
        if name in ("colour", "shape"):  # one cell in ten holds a centre: those count for most of what is to be learnt
            losses.append(F.cross_entropy(logits[name][here], label[here]))
    return torch.stack(losses).sum(), right
