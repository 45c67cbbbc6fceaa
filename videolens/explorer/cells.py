"""The cells of an explorer's map: what cutting a route in a window of layers does to the answers of one prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from videolens.engine import sweep
from videolens.errors import SelectionError
from videolens.experiments.flow.plan import check_routes, route_knockouts
from videolens.explorer.packing import runs_of
from videolens.interventions.blocked import blocked
from videolens.interventions.knockout import Knockout, route_name
from videolens.interventions.layer_sets import cut_layers
from videolens.interventions.protocol import Acting
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt


@dataclass(frozen=True, eq=False)
class Cells:
    """Every route cut in every window of layers, in one prompt.

    answer: the answers that are shown; their tokens are those that `measure_cells` was given.

    Attributes:
        routes: that the prompt has.
        layers: 0-based centre of every window → the layers that are cut together.
        before: probabilities with no route cut.
        after: with one cut.
        change: of the followed answer's probability, in percent of what it was.
        queries, keys: of every route, the positions that lose an edge, as [first, last] of what hangs together.
        missing: route → why the prompt does not have it.
    """

    routes: tuple[str, ...]
    layers: dict[int, tuple[int, ...]]
    before: Float[Tensor, " answer"]
    after: Float[Tensor, "route layer answer"]
    change: Float[Tensor, "route layer"]
    queries: tuple[list[list[int]], ...]
    keys: tuple[list[list[int]], ...]
    missing: dict[str, str]


def measure_cells(
    model: HookedVideoTransformer,
    prompt: Prompt,
    answers: Sequence[int],
    followed: int,
    *,
    routes: Sequence[str],
    window: int | None,
    under: Sequence[Acting] = (),
    max_memory: int | None = None,
) -> Cells:
    """Cut each route in a window of layers around each layer, as `trace_flow` does; keep every answer's probability.

    Args:
        model: the model.
        prompt: a single prompt.
        answers: tokens whose probability is kept.
        followed: which of them is followed.
        routes: by name.
        window: layers cut together; None: as `trace_flow`.
        under: interventions that hold all the while.
        max_memory: bytes that the engine may use besides the model; None: half of what is free.

    Raises:
        SelectionError: a route is unknown, or the prompt has none of them.
        VideolensError: a window that does not fit the model.
    """
    window = check_routes(model, routes, window)
    n_layers = model.cfg.n_layers
    knockouts, kept, missing = route_knockouts(prompt, tuple(map(route_name, routes)), window, n_layers)
    if not kept:
        raise SelectionError(f"the prompt has none of the routes: {'; '.join(sorted(set(missing.values())))}")
    asked = [[*under, knockout] for knockout in knockouts] + [list(under)] if under else list(knockouts)
    found = sweep(model, prompt, asked, max_memory=max_memory)
    shares = found.logits.softmax(-1)[:, list(answers)].cpu()
    before = shares[-1] if under else found.base.softmax(-1)[list(answers)].cpu()
    after = shares[: len(knockouts)].reshape(len(kept), -1, len(answers))
    change = (after[..., followed].double() - before[followed]) / before[followed] * 100
    cut = [_cut(knockouts[i], prompt) for i in range(0, len(knockouts), after.shape[1])]
    layers = {layer: tuple(which) for layer, which in cut_layers("centre", window, n_layers).items()}
    queries, keys = zip(*cut, strict=True)
    return Cells(tuple(kept), layers, before, after, change, queries, keys, missing)


def _cut(knockout: Knockout, prompt: Prompt) -> tuple[list[list[int]], list[list[int]]]:
    """Queries and keys that lose an edge."""
    query = torch.zeros(prompt.tokens.n_pos, dtype=torch.bool)
    key = query.clone()
    for rows, part in blocked(knockout.what, prompt.tokens).causal():
        query[rows[part.any(dim=1)]] = True
        key |= part.any(dim=0)
    return runs_of(query.nonzero().flatten()), runs_of(key.nonzero().flatten())
