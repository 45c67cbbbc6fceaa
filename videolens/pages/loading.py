"""Loading a model for a page or a table, and saying where it runs."""

from __future__ import annotations

from collections.abc import Callable

from videolens.model.checkpoints.placing import where_it_runs
from videolens.model.transformer import HookedVideoTransformer


def load(
    name: str, *, device: str = "cpu", dtype: str | None = None, say: Callable[[str], None] = lambda text: None
) -> HookedVideoTransformer:
    """`from_pretrained`; `say` is called with where the model runs, if there is something to say about it."""
    model = HookedVideoTransformer.from_pretrained(name, device=device, dtype=dtype)
    if where := where_it_runs(model, device):
        say(f"{name} runs {where}")
    return model
