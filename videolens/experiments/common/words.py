"""Words for tokens, models and measurements, the same in every table and figure."""

from __future__ import annotations

from videolens.model.transformer import HookedVideoTransformer


def token_text(model: HookedVideoTransformer, token: int) -> str:
    """A token as text; its id where the model has no tokenizer."""
    if model.tokenizer is None:
        return str(token)
    return str(model.tokenizer.decode([token])).strip() or str(token)
