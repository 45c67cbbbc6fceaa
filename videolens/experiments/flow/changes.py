"""By how much a token's probability changes under each knockout of a sweep, and how much of that is rounding."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float64
from torch import Tensor

from videolens.engine import Base, Sweep, sweep
from videolens.interventions.knockout import Knockout
from videolens.interventions.rerounded import Rerounded
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt


def changes_of(found: Sweep, token: int) -> tuple[float, Float64[Tensor, " row"], Float64[Tensor, " row"]]:
    """A token's probability with nothing changed and under each knockout, and the change in percent."""
    p_base, p_knockout = float(found.base.softmax(-1)[token]), found.logits.softmax(-1)[:, token].double()
    return p_base, p_knockout, (p_knockout - p_base) / p_base * 100


def noise_of(
    model: HookedVideoTransformer,
    prompt: Prompt,
    knockouts: Sequence[Knockout],
    changes: Sequence[float],
    token: int,
    *,
    of_route: int,
    unblocked: Base,
    engine: str,
    max_memory: int | None,
) -> tuple[float, float]:
    """By how much the deepest change of a route differs, at most, when it is rounded elsewhere; forwards taken.

    Args:
        model, prompt: what was swept.
        knockouts: `of_route` neighbours are one route's.
        changes: of the token's probability under each, in percent.
        token: whose probability is followed.
        of_route: knockouts of a route.
        unblocked: the run with nothing changed.
        engine, max_memory: of the sweep.
    """
    deepest = [
        min(range(start, start + of_route), key=changes.__getitem__) for start in range(0, len(changes), of_route)
    ]
    repeated = [Rerounded(knockouts[i]) for i in deepest]
    again = sweep(model, prompt, repeated, engine=engine, max_memory=max_memory, base=unblocked)
    found = changes_of(again, token)[2].tolist()
    return max(abs(new - changes[i]) for new, i in zip(found, deepest, strict=True)), again.forwards
