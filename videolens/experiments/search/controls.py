"""What stands beside a pathway that was found: as many edges cut at random, and video tokens dropped at its operations.

Tokens are dropped as FastV does (Chen et al. 2024, "An Image is Worth 1/2 Tokens After Layer 2"): after the first two
layers, those video tokens go to which the last token attends least.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from jaxtyping import Float, Int64
from torch import Tensor

from videolens.experiments.search.judging import Judge, Judged
from videolens.experiments.search.result import DROPPED, RANDOM
from videolens.interventions.cut_routes import CutRoutes
from videolens.interventions.knockout import Knockout
from videolens.interventions.random_blocking import RandomBlocking
from videolens.interventions.route_pathway import RoutePathway
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt

AFTER = 2
"""Layers that see all video tokens."""

Control = Callable[[Callable[[int], None]], Judged]
"""Judges all questions along something, and tells how many are done."""


def controls_of(judge: Judge, pathway: CutRoutes, draws: int) -> dict[str, Control]:
    """What is judged beside a pathway, by name.

    1. So many random draws of other edges, about as many along every route and in every layer; none where single heads
       are closed, for edges are drawn for all heads.
    2. Video tokens dropped so that as many operations are left; in a model of more than two layers, if there is video.

    Args:
        judge: has the questions.
        pathway: what they are compared with.
        draws: random ones; 0: no controls at all.
    """
    found: dict[str, Control] = {}
    if not draws:
        return found
    if all(knockout.heads is None for knockout in pathway.knockouts):
        for seed in range(draws):
            drawn = RandomBlocking(pathway, seed=seed, match="routes and layers")
            found[f"{RANDOM} {seed + 1}"] = partial(judge.judge, drawn)
    if judge.model.cfg.n_layers > AFTER and all(prompt.tokens.grid[0] for prompt in judge.prompts):
        kept = dict[int, int]()
        for members in judge.layouts:
            prompt = judge.prompts[members[0]]
            flops = judge.model.compile(pathway).plan(prompt).flops
            kept |= dict.fromkeys((id(judge.prompts[i]) for i in members), kept_tokens(judge.model, prompt, flops))
        found[DROPPED] = partial(judge.judge_each, partial(_dropped_of, judge.model, kept))
    return found


def kept_tokens(model: HookedVideoTransformer, prompt: Prompt, flops: int) -> int:
    """The most video tokens that can stay so that no more operations are left; 0 if even none are too many."""
    order, low, high = by_attention(model, prompt), 0, len(prompt.tokens["video"])
    while low < high:
        middle = (low + high + 1) // 2
        if model.compile(dropped(model, prompt, middle, order)).plan(prompt).flops <= flops:
            low = middle
        else:
            high = middle - 1
    return low


def by_attention(model: HookedVideoTransformer, prompt: Prompt) -> Int64[Tensor, " video"]:
    """Video tokens, numbered from the first, from the one that the last token attends to least: in the last layer that
    sees them all, mean over heads."""
    name, seen = f"blocks.{AFTER - 1}.attn.hook_pattern", list[Tensor]()
    model.run_with_hooks(
        prompt, rows="last", stop_at_layer=AFTER, fwd_hooks=[(name, lambda pattern, hook: seen.append(pattern))]
    )
    attended: Float[Tensor, " video"] = seen[0][0].mean(0)[-1, prompt.tokens["video"]]
    return attended.argsort(stable=True).cpu()


def dropped(
    model: HookedVideoTransformer, prompt: Prompt, keep: int, order: Int64[Tensor, " video"] | None = None
) -> Knockout | RoutePathway:
    """Nobody reads the video tokens that are attended to least, from the third layer on: they are not computed there.

    Args:
        model: the model.
        prompt: one prompt.
        keep: how many video tokens stay.
        order: of the video tokens, as `by_attention` gives it.
    """
    order = by_attention(model, prompt) if order is None else order
    gone, tokens = order[: len(order) - keep], prompt.tokens
    if not len(gone):
        return RoutePathway(model.cfg.n_layers, {})
    at = tokens["video"][gone]
    cells = zip(tokens.frame[at].tolist(), tokens.row[at].tolist(), tokens.column[at].tolist(), strict=True)
    source = " | ".join(f"f{frame} r{row} c{column}" for frame, row, column in cells)
    return Knockout(source, "all", layers=range(AFTER, model.cfg.n_layers))


def _dropped_of(model: HookedVideoTransformer, kept: Mapping[int, int], prompt: Prompt) -> Knockout | RoutePathway:
    return dropped(model, prompt, kept[id(prompt)])
