"""Which models gradients pass through."""

from __future__ import annotations

from videolens.errors import ModelError
from videolens.model.transformer import HookedVideoTransformer


def check_passes_gradients(model: HookedVideoTransformer, *parts: str) -> None:
    """Say that a model is quantised.

    Args:
        model: the model.
        parts: what the names of its parameters begin with: "blocks.", "frontend.".

    Raises:
        ModelError: weights that no gradient passes.
    """
    for name, weight in model.named_parameters():
        if name.startswith(parts) and not weight.dtype.is_floating_point:
            raise ModelError(
                f"{name} is of {weight.dtype}, and no gradient passes a quantised layer: load the checkpoint that it "
                "was quantised from, in bfloat16 or float32"
            )
