"""Loading a model for a command, a page or a run, and saying where it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from videolens.model.checkpoints.placing import where_it_runs
from videolens.model.transformer import HookedVideoTransformer


def load(
    name: str, *, device: str = "cpu", say: Callable[[str], None] = lambda text: None, **how: Any
) -> HookedVideoTransformer:
    """`from_pretrained`; `say` is called with where the model runs, if there is something to say about it."""
    model = HookedVideoTransformer.from_pretrained(name, device=device, **how)
    if where := where_it_runs(model, device):
        say(f"{name} runs {where}")
    return model
