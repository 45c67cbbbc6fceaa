"""Words for tokens, models and measurements, the same in every table and figure."""

from __future__ import annotations

from videolens.model.transformer import HookedVideoTransformer

__all__ = ["token_text"]


def token_text(model: HookedVideoTransformer, token: int) -> str:
    """A token as text; its id where the model has no tokenizer, or the text is blank."""
    if model.tokenizer is None:
        return str(token)
    return model.shown(token).strip() or str(token)
