"""Stages 1 and 2: teach the decoder to answer, first about still clips (the image-only base), then about time.

The tower is frozen by now, so every clip is seen once and kept as features. Several questions about one clip share
its tokens: each is a branch that sees the prefix (text and video) and itself only, with positions as if it stood
alone.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from training.data import Batch, Clips, Packer
from training.heads import Heads, Weights
from training.optimizer import Optimizer
from training.precision import autocast, precision


@dataclass(frozen=True)
class Stage:
    """Settings of one stage of training."""

    name: str
    steps: int
    batch: int = 32
    parts: int = 1
    """Batches a step, each in a thread of its own: two slow cores get more done so than with shared products."""
    slots: int = 6
    """Slots of questions after the prefix; a slot takes one multiple-choice question or two in words."""
    lr: float = 1.2e-3
    warmup: int = 100
    decay_from: float = 0.7
    words_first: float = 0.25
    """Share of the stage that asks for answers in words alone: while the answer is not known, its letter is noise."""
    heads: Weights | None = field(default_factory=Weights)
    """Weights of the losses at inner layers, or None for none: answers alone."""
    heads_until: float = 0.7
    """Share of the stage after which the heads' losses are switched off: the end of training is answers alone."""
    marks: int = 8
    """At how many points along the way a checkpoint is kept."""
    muon: float | None = None
    """Muon's rate for the decoder's matrices; None leaves them to AdamW like the rest."""


def forward(model: Any, batch: Batch, layers: Collection[int] = ()) -> tuple[Tensor, dict[int, Tensor]]:
    """Logits at the targets [n d_vocab], and the residual after each of `layers` [batch pos d_model].

    The decoder's own modules, run block by block over the packed layout: the prefix is causal, and a slot of
    questions sees the prefix and, within the slot, its own question. A test holds this to the model's ordinary
    forward.
    """
    inner = model.model
    decoder = inner.language_model
    batch = batch.to(model.device)
    with autocast(model.device):
        video = inner.multi_modal_projector(batch.features.flatten(1, 2)).float()
        x = decoder.embed_tokens(batch.input_ids)
        x = x.masked_scatter(batch.video[None, :, None].expand(len(x), -1, x.shape[-1]), video)
        rotary = [t.to(precision(x.device))[:, None] for t in decoder.rotary_emb(x, batch.position_ids)]
        mask, causal = slot_mask(batch)
        seen: dict[int, Tensor] = {}
        for i, block in enumerate(decoder.layers):
            x = _block(block, x, rotary, mask, causal, batch.n_prefix, batch.n_slot)
            if i in layers:
                seen[i] = x
        hidden = decoder.norm(x[batch.target_at[:, 0], batch.target_at[:, 1]])
        return model.lm_head(hidden).float(), seen


@torch.compile(dynamic=False)
def _block(
    block: Any, x: Tensor, rotary: list[Tensor], mask: Tensor, causal: Tensor, n_prefix: int, n_slot: int
) -> Tensor:
    x = x + _attention(block.self_attn, block.input_layernorm(x), rotary, mask, causal, n_prefix, n_slot)
    return x + block.mlp(block.post_attention_layernorm(x))


def slot_mask(batch: Batch) -> tuple[Tensor, Tensor]:
    """What is added to the scores: within slots [batch 1 slot query key], and within the prefix [query key]."""
    branch = batch.branch[:, batch.n_prefix :].unflatten(1, (-1, batch.n_slot))
    causal = torch.ones(batch.n_slot, batch.n_slot, dtype=torch.bool, device=branch.device).tril()
    slots = (branch[..., :, None] == branch[..., None, :]) & causal
    prefix = torch.ones(batch.n_prefix, batch.n_prefix, dtype=torch.bool, device=branch.device).tril()
    return tuple(
        torch.zeros(m.shape, dtype=precision(m.device), device=m.device).masked_fill_(~m, -30000.0)
        for m in (slots[:, None], prefix)
    )


def _attention(
    module: Any, x: Tensor, rotary: list[Tensor], slots: Tensor, causal: Tensor, n_prefix: int, n_slot: int
) -> Tensor:
    def heads(y: Tensor) -> Tensor:
        return y.unflatten(-1, (-1, module.head_dim)).transpose(1, 2)

    def turned(y: Tensor) -> Tensor:
        half = y.shape[-1] // 2
        return y * rotary[0] + torch.cat([-y[..., half:], y[..., :half]], -1) * rotary[1]

    q, k, v = (heads(project(x)) for project in (module.q_proj, module.k_proj, module.v_proj))
    if hasattr(module, "q_norm"):  # Qwen3's
        q, k = module.q_norm(q).to(v.dtype), module.k_norm(k).to(v.dtype)
    q, k = turned(q * module.scaling), turned(k)
    k, v = (t.repeat_interleave(module.num_key_value_groups, 1) for t in (k, v))
    q0, k0, v0 = (t[:, :, :n_prefix] for t in (q, k, v))
    q1, k1, v1 = (t[:, :, n_prefix:].unflatten(2, (-1, n_slot)) for t in (q, k, v))
    z0 = torch.softmax(q0 @ k0.transpose(-1, -2) + causal, -1) @ v0
    to_prefix = (q1.flatten(2, 3) @ k0.transpose(-1, -2)).unflatten(2, q1.shape[2:4])
    pattern = torch.softmax(torch.cat([to_prefix, q1 @ k1.transpose(-1, -2) + slots], -1), -1)
    z1 = (pattern[..., :n_prefix].flatten(2, 3) @ v0) + (pattern[..., n_prefix:] @ v1).flatten(2, 3)
    z = torch.cat([z0, z1], dim=2).transpose(1, 2).flatten(2)
    return module.o_proj(z)


@torch.no_grad()
def accuracy(model: Any, clips: Clips, packer: Packer, seed: int = 0, letters: float = 1.0) -> dict[str, float]:
    """Share of first answer tokens that are right, per kind of question, ranked among the whole vocabulary."""
    rng = np.random.default_rng(seed)
    right: dict[str, list[float]] = defaultdict(list)
    for start in range(0, len(clips), 64):
        batch = packer.batch(clips, np.arange(start, min(start + 64, len(clips))), rng, letters)
        with torch.compiler.set_stance("force_eager"):  # compiling for these shapes takes longer than it saves
            logits, _ = forward(model, batch)
        for kind, ok in zip(batch.kind, (logits.argmax(-1).cpu() == batch.target).tolist(), strict=True):
            if kind != "more":
                right[kind].append(ok)
    return {kind: float(np.mean(values)) for kind, values in sorted(right.items())}


def _gradients(
    model: Any, heads: Heads, batch: Batch, weights: Weights | None, parameters: list[Tensor]
) -> tuple[dict[str, float], tuple[Tensor | None, ...]]:
    """Losses by name on one batch, and the gradient of their sum."""
    batch = batch.to(model.device)
    logits, seen = forward(model, batch, weights.layers.values() if weights else ())
    each = F.cross_entropy(logits, batch.target, reduction="none")
    losses = {"loss": (each * batch.weight).sum() / batch.weight.sum()}
    if weights:
        losses |= heads.losses(seen, batch, weights)
    total = torch.stack(list(losses.values())).sum()
    return {k: float(v.detach()) for k, v in losses.items()}, torch.autograd.grad(total, parameters, allow_unused=True)


def train(
    model: Any,
    stage: Stage,
    draw: Callable[[np.random.Generator, int], Batch],
    test: Callable[[], dict[str, float]],
    log: Callable[..., None],
    state_file: Path,
    keep: Callable[[int], None] = lambda step: None,
    every: int = 100,
) -> None:
    """Train decoder and projector in place; resumes from `state_file` if it is there.

    `draw(rng, step)` gives a batch, `test()` accuracies for the log, `keep(step)` is called at `stage.marks` points
    along the way.
    """
    text = model.config.text_config
    heads = Heads(text.hidden_size, text.vocab_size).to(model.device)
    optimizer = Optimizer(model, heads, stage.lr, stage.muon)
    rng = np.random.default_rng(list(stage.name.encode()))
    first = 0
    if state_file.exists():
        state = torch.load(state_file, map_location=model.device, weights_only=False)
        model.load_state_dict(state["model"])
        heads.load_state_dict(state["heads"])
        optimizer.load_state_dict(state["optimizer"])
        rng.bit_generator.state, first = state["rng"], state["step"]
    pool = ThreadPoolExecutor(stage.parts)
    marks = {round(stage.steps * (i + 1) / stage.marks) for i in range(stage.marks)}
    start, running = time.time(), defaultdict(list)
    for step in range(first, stage.steps):
        done = step / stage.steps
        optimizer.set_rate(min(1, (step + 1) / stage.warmup, (1 - done) / (1 - stage.decay_from) + 0.02))
        weights = stage.heads if done < stage.heads_until else None
        parts = [(model, heads, draw(rng, step), weights, optimizer.parameters) for _ in range(stage.parts)]
        each = list(pool.map(_gradients, *zip(*parts, strict=True)))
        for losses, _ in each:
            for name, value in losses.items():
                running[name].append(value)
        optimizer.set_gradients([gradients for _, gradients in each])
        optimizer.step()
        if (step + 1) % every == 0 or step + 1 == stage.steps:
            log(
                stage=stage.name,
                step=step + 1,
                seconds=time.time() - start,
                **{k: float(np.mean(v)) for k, v in running.items()},
                **test(),
            )
            running.clear()
            torch.save(
                {
                    "model": model.state_dict(),
                    "heads": heads.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "rng": rng.bit_generator.state,
                    "step": step + 1,
                },
                state_file,
            )
        if step + 1 in marks:
            keep(step + 1)
