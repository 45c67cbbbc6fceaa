"""Which ways to estimate a knockout come near to it: `python tests/perf/attribution_variants.py [--n 8] [--json FILE]`.

The variants that docs/attribution.md compares and videolens does not offer, on validation questions of the bundled
model (`--n` of each of five tasks), beside those that it offers. All are of the kind "change of z without the unit,
exactly, times a slope", and differ in the slope; or carry the change through more layers exactly. Dense and slow on
purpose: a forward of 186 tokens, written out, under plain autograd.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[i]) for i in (0, 1, 2)]

import numpy as np
import pandas as pd
import torch
from perf_timing import table
from torch import Tensor

import videolens as vl
from videolens.experiments.attribution.agreement import agreement
from videolens.experiments.attribution.scores import METHODS
from videolens.interventions.partition import Partition
from videolens.model.decoder.attention import rotate
from videolens.prompt.prompt import Prompt

GRAINS: dict[str, dict[str, Any]] = {
    "routes": {"verify": "all"},
    "heads": {"heads": True, "verify": 30},
    "frame pairs": {"grain": "frame pairs", "verify": 30},
}
MEASURES = ("spearman", "magnitudes", "recall", "recovered")


def difference(logits: Tensor, prompt: Prompt) -> Tensor:
    """The right option's logit minus the best other's."""
    others = [token for token in prompt.option_tokens if token != prompt.answer_token]
    return logits[..., prompt.answer_token] - logits[..., others].amax(-1)


class Dense:
    """A forward written out, with what a slope may leave out. `norm`: no slope through the norms' scales. `half`: each
    factor of a gated MLP has half of the slope, and the activation is a factor (relevance patching). `pattern`: no
    slope through attention patterns. `gate`: on unnormalised weights, [query key]."""

    def __init__(self, model: vl.HookedVideoTransformer, prompt: Prompt) -> None:
        self.model, self.prompt, n = model, prompt, prompt.shape[1]
        self.causal = torch.ones(n, n, dtype=torch.bool).tril()

    def slopes(
        self, resid: Tensor, *, norm: bool = False, half: bool = False, pattern: bool = False, gate: Any = None
    ) -> tuple[list[tuple[Tensor, Tensor, Tensor]], list[Tensor]]:
        """Of every layer (pattern, values, z), and the slope at z."""
        resid, kept = resid.clone().requires_grad_(), []
        for block in self.model.blocks:
            attn, x = block.attn, self._norm(block.ln1, resid, norm)
            q, k, v = (part(x).unflatten(-1, (-1, attn.d_head)) for part in (attn.q, attn.k, attn.v))
            q, k = (rotate(each.clone(), *self.prompt.rotary) for each in (q, k))
            scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * attn.scale
            scores = scores.masked_fill(~self.causal, -torch.inf)
            shown = (scores if gate is None else scores + gate.log()).softmax(-1)
            shown = shown.detach() if pattern else shown
            z = torch.einsum("bhqk,bkhd->bqhd", shown, v)
            kept.append((shown, v, z))
            resid = resid + attn.o(z.flatten(2))
            x = self._norm(block.ln2, resid, norm)
            pre, up = block.mlp.gate(x), block.mlp.up(x)
            post = torch.sigmoid(pre).detach() * pre if half else block.mlp.act(pre)
            product = (post * up.detach() + post.detach() * up) / 2 if half else post * up
            resid = resid + block.mlp.down(product)
        logits = self.model.unembed(self._norm(self.model.ln_final, resid[:, -1:], norm))[0, 0]
        found = torch.autograd.grad(difference(logits, self.prompt), [z for _, _, z in kept], allow_unused=True)
        slopes = [torch.zeros_like(z) if each is None else each for each, (_, _, z) in zip(found, kept, strict=True)]
        return [tuple(part.detach()[0] for part in each) for each in kept], slopes

    @staticmethod
    def _norm(layer: Any, x: Tensor, frozen: bool) -> Tensor:
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + layer.eps)
        return layer.w * (x * (scale.detach() if frozen else scale))

    def local(self, kept: Sequence[Any], slopes: Sequence[Tensor], partition: Partition) -> np.ndarray:
        """[layer head route]: z without the route, exactly, times the slope."""
        found = torch.zeros(len(kept), kept[0][0].shape[0], len(partition.routes), dtype=torch.float64)
        for layer, ((pattern, v, z), slope) in enumerate(zip(kept, slopes, strict=True)):
            for target in partition.targets:
                rows = slice(target.first, target.stop)
                weights = pattern[:, rows].double()
                for route, first, stop in target.groups:
                    left = weights.clone()
                    left[..., first:stop] = 0
                    total = left.sum(-1, keepdim=True)
                    left = torch.where(total > 1e-9, left / total.clamp(min=1e-30), 0.0)
                    moved = torch.einsum("hqk,khd->qhd", left, v.double()) - z[rows]
                    found[layer, :, route] += (moved * slope[0, rows]).sum((0, 2))
        return found.numpy()

    def paths(self, partition: Partition, steps: int = 5) -> np.ndarray:
        """[layer head route]: each route's gate from 0 to 1 in all layers at once, the other routes open."""
        n, found = self.prompt.shape[1], 0.0
        query, key = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
        route_of = partition.route_of(query.flatten(), key.flatten()).view(n, n)
        total = np.zeros((len(self.model.blocks), self.model.cfg.n_heads, len(partition.routes)))
        for route in range(len(partition.routes)):
            of_route = (route_of == route) & self.causal
            for step in range(steps):
                gate = (step + 0.5) / steps
                kept, slopes = self.slopes(self.prompt.residual, gate=torch.where(of_route, gate, 1.0))
                for layer, ((pattern, v, z), slope) in enumerate(zip(kept, slopes, strict=True)):
                    seen = torch.einsum("khd,qhd->hqk", v, slope[0]) - (z * slope[0]).sum(-1).T[..., None]
                    found = -(pattern / gate * seen)[:, of_route].sum(-1) / steps
                    total[layer, :, route] += found.numpy()
        return total


def ahead(model: vl.HookedVideoTransformer, prompt: Prompt, layers: Sequence[int]) -> dict[str, np.ndarray]:
    """[layer 1 route] of the whole layer: the change carried exactly through so many layers more, times the slope."""
    depth, last = model.cfg.n_layers, prompt.shape[1] - 1
    residual, at = model.enter(prompt)
    streams = [residual.detach().requires_grad_()]
    with torch.enable_grad():
        for layer in range(depth):
            streams.append(model.run_layers(streams[-1], at, start=layer, stop=layer + 1))
        base = difference(model.read_out(streams[-1][:, [last]], at.only(slice(last, last + 1)))[0, 0], prompt)
        slopes = torch.autograd.grad(base, streams)
    routes = Partition.of(prompt.tokens).routes
    found = {f"layer, {more} ahead": np.zeros((depth, 1, len(routes))) for more in layers}
    with torch.no_grad():
        for layer in range(depth):
            for number, route in enumerate(routes):
                stream = streams[layer].detach().clone()
                with model.hooks(vl.Knockout.route(route, layers=layer).hooks(prompt)):
                    for more in range(max(layers) + 1):
                        at_end = min(layer + more, depth - 1)
                        if layer + more < depth:
                            stream = model.run_layers(stream, at, start=at_end, stop=at_end + 1)
                        if more in layers:
                            change = ((stream - streams[at_end + 1]) * slopes[at_end + 1]).sum()
                            if at_end == depth - 1:
                                logits = model.read_out(stream[:, [last]], at.only(slice(last, last + 1)))[0, 0]
                                change = difference(logits, prompt) - base
                            found[f"layer, {more} ahead"][layer, 0, number] = float(change)
    return found


def variants(model: vl.HookedVideoTransformer, question: vl.Question) -> dict[str, dict[str, np.ndarray]]:
    """Variant → grain → scores [layer head_or_1 route]."""
    prompt, reversed_clip = model.prompt(question), model.prompt(question.reversed())
    dense = Dense(model, prompt)
    kept, clean = dense.slopes(prompt.residual)
    video = prompt.tokens["video"]
    average = prompt.residual.clone()
    average[:, video] = average[:, video].mean(1, keepdim=True)

    def mixed(other: Tensor, shares: Sequence[float]) -> list[Tensor]:
        runs = [dense.slopes(torch.lerp(prompt.residual, other, share))[1] for share in shares]
        return [sum(each) / len(each) for each in zip(*runs, strict=True)]

    even = (0.0, 0.25, 0.5, 0.75, 1.0)
    slopes = {
        "local, written out": clean,
        "no slope through norms": dense.slopes(prompt.residual, norm=True)[1],
        "no slope through patterns": dense.slopes(prompt.residual, pattern=True)[1],
        "halves in MLPs": dense.slopes(prompt.residual, half=True)[1],
        "relevance: norms, halves, patterns": dense.slopes(prompt.residual, norm=True, half=True, pattern=True)[1],
        "slope half way to the reversed clip": mixed(reversed_clip.residual, (0.5,)),
        "mean of clean and half way": mixed(reversed_clip.residual, (0.0, 0.5)),
        "mean over 5 mixtures with the reversed clip": mixed(reversed_clip.residual, even),
        "mean over 5 mixtures with the mean video token": mixed(average, even),
    }
    partitions = {grain: Partition.of(prompt.tokens, how.get("grain", "routes")) for grain, how in GRAINS.items()}
    found = {
        name: {grain: dense.local(kept, each, partition) for grain, partition in partitions.items()}
        for name, each in slopes.items()
    }
    path = dense.paths(partitions["routes"])
    found["gates of one route at a time, 5 steps"] = {"routes": path, "heads": path}
    return found | {name: {"routes": each} for name, each in ahead(model, prompt, (0, 1, 2, 4)).items()}


def scored(exact: pd.DataFrame, many: Sequence[np.ndarray], routes: Sequence[Sequence[str]]) -> pd.DataFrame:
    """The units that were closed, with a variant's scores."""
    closed, found = exact[exact["exact"].notna()].copy(), []
    number = closed.groupby(["task", "question"], sort=False).ngroup()
    for question, layer, head, route in zip(number, closed["layer"], closed["head"], closed["route"], strict=True):
        by_head = many[question][layer, :, routes[question].index(route)]
        found.append(by_head.sum() if pd.isna(head) else by_head[head])
    return closed.assign(score=found)


def _measured(made: pd.DataFrame) -> list[float]:
    return [agreement(made, measure, top=15, seed=0).value for measure in MEASURES]


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Print one row for every variant and grain; the same as numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=8, help="validation questions of each task")
    parser.add_argument("--tasks", type=int, default=5, help="of the data set's, the first")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help='"layer" is always among them')
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    model = vl.HookedVideoTransformer.from_pretrained("shapes")
    questions = vl.load_dataset("shapes", split="validation", n=options.n)[: options.n * options.tasks]
    routes = [
        {
            grain: Partition.of(model.prompt(each).tokens, how.get("grain", "routes")).routes
            for grain, how in GRAINS.items()
        }
        for each in questions
    ]
    tables: dict[str, dict[str, pd.DataFrame]] = {}
    for grain, how in GRAINS.items():
        for method in dict.fromkeys([*options.methods, "layer"]):  # of the layer's scores the closed units are taken
            made = vl.attribute(model, questions, method=method, progress=False, **how).table
            tables.setdefault(method, {})[grain] = made[made["exact"].notna()]
    every = [variants(model, each) for each in questions]
    for name in every[0]:
        for grain in every[0][name]:
            many = [each[name][grain] for each in every]
            made = scored(tables["layer"][grain], many, [each[grain] for each in routes])
            tables.setdefault(name, {})[grain] = made
    figures = {name: {grain: _measured(made) for grain, made in each.items()} for name, each in tables.items()}
    rows = [(name, grain, *values) for name, each in figures.items() for grain, values in each.items()]
    print(table(f"{len(questions)} validation questions", ("slope", "units", *MEASURES), rows))
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1))
    return figures


if __name__ == "__main__":
    main()
