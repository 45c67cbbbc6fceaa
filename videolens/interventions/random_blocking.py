"""Random blocking: as much attention is cut as a pathway cuts, but anywhere. A pathway must be compared with it.

Map the Flow, section "Effective pathways", draws once, per layer, as many pairs as the pathway blocks, from the causal
pairs whose query and key are at or after the first video token. Here every draw has a seed, and `MATCHES` names what it
makes equal. Under the published masks every row stays live, so open pairs can be compared; a closed pathway is compared
by *live* edges (`videolens.interventions.edges`), since its other open edges carry nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int8
from torch import Tensor

from videolens.errors import VideolensError, check_whole, near
from videolens.interventions.cut_routes import CutRoutes
from videolens.interventions.edges import Allowed, OpenEdges, causal_mask, count_live, live_rows
from videolens.interventions.knockout import MaskFunction
from videolens.prompt.prompt import Prompt
from videolens.prompt.selections import PARTS, part_frames, parts
from videolens.prompt.tokens import TokenMap

MATCHES: dict[str, str] = {
    "edges": "as many open edges, the same number in every layer",
    "live edges": "as many live edges, the same number of pairs cut in every layer",
    "routes and layers": "about as many live edges along every route and in every layer, but other ones",
}

_ROUNDS = 200  # of proportional fitting, which settles long before


@dataclass(frozen=True)
class RandomBlocking(OpenEdges):
    """Random pairs cut in every layer, as many as leave what a pathway leaves.

    Attributes:
        like: the pathway it is compared with.
        seed: of the draw.
        match: what is made equal: a name from `MATCHES`. "routes and layers" keeps the pathway's live edges per route
            (own frame, earlier frames, V → Q, V → A, Q → Q, Q → A, A → A), summed over layers, and per layer, summed
            over routes, and draws which they are: it differs from the pathway only in which route is open where.

    Raises:
        VideolensError: an unknown `match`, or a seed that is no whole number.
    """

    like: CutRoutes
    seed: int = 0
    match: str = "live edges"
    by_layout: ClassVar[bool] = True
    """What it draws depends on what a prompt's positions are, and on nothing else of it."""

    def __post_init__(self) -> None:
        if self.match not in MATCHES:
            raise VideolensError(near(self.match, MATCHES, kind="match of random blocking"))
        check_whole("seed", self.seed)

    @property
    def n_layers(self) -> int:
        """Depth of the model it is for."""
        return self.like.n_layers

    @property
    def by_roles(self) -> bool:
        """Whether it cuts the same in all prompts whose roles and frames are alike: if the pathway does."""
        return self.like.by_roles

    def allowed(self, prompt: Prompt | TokenMap, layer: int) -> Bool[Tensor, "query key"]:
        """Causal pairs that are open in a 0-based layer."""
        return _drawn(self, prompt if isinstance(prompt, TokenMap) else prompt.tokens)(layer)

    def hooks(self, prompt: Prompt) -> list[tuple[str, MaskFunction]]:
        """Hook functions for `run_with_hooks(prompt, fwd_hooks=…)`. Generated tokens see everything."""
        cuts = [_Open(self.allowed(prompt, layer)) for layer in range(self.n_layers)]
        return [(f"blocks.{layer}.attn.hook_mask", cut) for layer, cut in enumerate(cuts)]

    def cone(self, prompt: Prompt) -> tuple[int, int] | None:
        """(0, row of the first video token): before that nothing is cut."""
        return 0, _first(prompt.tokens)

    def check(self, *, n_layers: int, n_heads: int) -> None:
        """Raise a `VideolensError` if the pathway is for a model of another depth."""
        self.like.check(n_layers=n_layers, n_heads=n_heads)


@dataclass(frozen=True, eq=False)
class _Open:
    """The hook function of one layer: nothing but these pairs."""

    pairs: Bool[Tensor, "query key"]

    def __call__(self, mask: Bool[Tensor, "batch head query key"], hook: Any) -> Bool[Tensor, "batch head query key"]:
        rows, keys = hook.ctx["rows"], hook.ctx["keys"]
        pairs = self.pairs.to(mask.device)
        inside, known = rows < len(pairs), keys < len(pairs)
        mask = mask.clone()
        at = inside.nonzero().flatten()
        among = known.nonzero().flatten()
        mask[..., at[:, None], among] &= pairs[rows[at][:, None], keys[among]]
        return mask


def _first(tokens: TokenMap) -> int:
    """The first position of part V: where blocking begins. Without video nothing could be compared."""
    video = tokens["part V"]
    if len(video) == 0:
        raise VideolensError("random blocking draws among the video and what follows it, but the prompt has no video")
    return int(video[0])


# How to draw again what was drawn, for as long as a prompt lives: no draw may hold on to its token map.
_known: WeakKeyDictionary[TokenMap, dict[RandomBlocking, Allowed]] = WeakKeyDictionary()


def _drawn(blocking: RandomBlocking, tokens: TokenMap) -> Allowed:
    known = _known.setdefault(tokens, {})
    if blocking not in known:
        draw = _by_cell if blocking.match == "routes and layers" else _everywhere
        known[blocking] = draw(blocking, tokens)
    return known[blocking]


def _generator(seed: int, layer: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, layer]).generate_state(1)[0]))


def _everywhere(blocking: RandomBlocking, tokens: TokenMap) -> Allowed:
    """The same number of pairs in every layer, the largest that leaves at least what the pathway leaves.

    In every layer the pairs have a random order, and the first of them are cut: so the number left falls with the
    number cut, and bisection finds it.
    """
    first, n_pos, like, last = _first(tokens), tokens.n_pos, blocking.like, int(tokens["last"][0])
    m = n_pos - first

    def cut(number: int) -> Allowed:
        return partial(_all_but, number, blocking.seed, first, n_pos)

    def left(number: int) -> int:
        if blocking.match == "edges":
            return like.n_layers * (n_pos * (n_pos + 1) // 2 - number)
        return count_live(cut(number), like.n_layers, last)

    wanted = like.edges(tokens) if blocking.match == "edges" else like.live_edges(tokens)
    return cut(_largest(left, wanted, m * (m + 1) // 2))


def _all_but(number: int, seed: int, first: int, n_pos: int, layer: int) -> Bool[Tensor, "query key"]:
    """The causal pairs without `number` of those from `first` on, the first ones of the layer's random order."""
    mask, m = causal_mask(n_pos), n_pos - first
    pairs = mask[first:, first:].flatten().nonzero().flatten()
    order = torch.randperm(len(pairs), generator=_generator(seed, layer))
    chosen = pairs[order[:number]]
    mask[first + chosen // m, first + chosen % m] = False
    return mask


def _largest(left: Callable[[int], int], wanted: int, high: int) -> int:
    """The largest number up to `high` that leaves at least what is wanted. `left` never rises, and 0 leaves enough.

    1. Each count takes a draw of every layer, and what is left falls almost in a straight line: guess where the line
       through both ends meets what is wanted.
    2. Then as far beyond that as the guess was short of it: the two have the answer between them.
    3. Where both together gain little, the middle.
    """
    low, most, least = 0, left(0), left(high)
    if least >= wanted:
        return high
    while (width := high - low) > 1:
        slope = (most - least) / width
        guess = low + int((most - wanted) / slope)  # 1.
        for _ in range(2):
            guess = min(max(guess, low + 1), high - 1)
            found = left(guess)
            low, most, high, least = (guess, found, high, least) if found >= wanted else (low, most, guess, found)
            if high - low <= 1:
                return low
            short = int(2 * abs(found - wanted) / slope) + 1  # 2.
            guess += short if found >= wanted else -short
        if high - low > width // 2:  # 3.
            guess = (low + high) // 2
            found = left(guess)
            low, most, high, least = (guess, found, high, least) if found >= wanted else (low, most, guess, found)
    return low


def _by_cell(blocking: RandomBlocking, tokens: TokenMap) -> Allowed:
    """Pairs drawn within every route and layer.

    1. Per route and layer: how many pairs live when nothing is cut, and how many under the pathway.
    2. Numbers between none and all of them whose sums over layers and over routes are the pathway's.
    3. That many pairs, drawn.
    """
    first, like = _first(tokens), blocking.like
    route = _routes(tokens)
    route[:first] = -1
    route[:, :first] = -1
    cells, n_pos = [cell for cell in route.unique().tolist() if cell >= 0], tokens.n_pos
    # 1.
    whole = _per_cell(lambda layer: causal_mask(n_pos), like.n_layers, tokens, route)
    wanted = _per_cell(lambda layer: like.allowed(tokens, layer), like.n_layers, tokens, route)
    # 2.
    numbers = _fitted(whole, wanted.sum(1), wanted.sum(0)).round().long()
    last = int(tokens["last"][0])

    # 3.
    def draw(layer: int) -> Bool[Tensor, "query key"]:
        generator = _generator(blocking.seed, layer)
        mask = causal_mask(n_pos)
        rows = torch.ones(n_pos, dtype=torch.bool)
        if layer == like.n_layers - 1:
            rows = torch.arange(n_pos) == last  # the only row of the last layer that anybody reads
        for cell in cells:
            pairs = ((route == cell) & rows[:, None]).flatten().nonzero().flatten()
            order = torch.randperm(len(pairs), generator=generator)
            mask.view(-1)[pairs[order[int(numbers[cell, layer]) :]]] = False
        return mask

    return draw


def _routes(tokens: TokenMap) -> Int8[Tensor, "query key"]:
    """Which route a causal pair belongs to; −1: none. In bytes: a long prompt has many pairs."""
    part = parts(tokens.role, tokens.frame).to(torch.int8)
    frame = part_frames(tokens.role, tokens.frame)
    n = len(PARTS)
    route = part.clamp(min=0)[:, None] * n + part.clamp(min=0)
    same = (frame[:, None] == frame) & (frame >= 0)
    route = route.masked_fill(same, n * n)
    route = route.masked_fill((part[:, None] < 0) | (part < 0), -1)
    return route.masked_fill(~causal_mask(tokens.n_pos), -1)


def _per_cell(
    allowed: Allowed, n_layers: int, tokens: TokenMap, route: Int8[Tensor, "query key"]
) -> Float64[Tensor, "route layer"]:
    """Live edges per route and layer."""
    cells = torch.zeros(len(PARTS) ** 2 + 1, n_layers, dtype=torch.float64)
    for below, (mask, rows) in enumerate(live_rows(allowed, n_layers, int(tokens["last"][0]))):
        found = route[mask & rows[:, None]]
        cells[:, n_layers - 1 - below] = torch.bincount(found[found >= 0], minlength=len(cells)).double()
    return cells


def _fitted(
    whole: Float64[Tensor, "route layer"], per_route: Float64[Tensor, " route"], per_layer: Float64[Tensor, " layer"]
) -> Float64[Tensor, "route layer"]:
    """Iterative proportional fitting, with no cell above the number of its pairs."""
    cells = whole * (per_route.sum() / whole.sum())
    for _ in range(_ROUNDS):
        for total, axis in ((per_route, 1), (per_layer, 0)):
            scale = total / cells.sum(axis).clamp(min=1e-9)
            cells = torch.minimum(cells * (scale[:, None] if axis else scale), whole)
    return cells
