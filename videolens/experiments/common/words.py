"""Words for tokens, models and measurements, the same in every table and figure."""

from __future__ import annotations

from math import isnan
from typing import Any

from videolens.model.transformer import HookedVideoTransformer

_UNFINISHED = "\ufffd"  # what decoding gives for a character of which not all bytes are there yet


def number(value: float, digits: int = 0, *, sign: str = "+") -> str:
    """A number for people: with a real minus, and no sign if it rounds to zero. `sign` "": none above zero either."""
    return f"{value:{sign}.{digits}f}".replace("-", "−") if round(value, digits) else f"{0:.{digits}f}"


def interval_text(value: float, low: float, high: float, digits: int = 1, *, sign: str = "+") -> str:
    """ "1.2 [0.5, 1.9]", each as `number` writes it; "–" for what is not defined, and no ends where they are not."""
    if isnan(value):
        return "–"
    written, first, last = (number(each, digits, sign=sign) for each in (value, low, high))
    return written if isnan(low) or isnan(high) else f"{written} [{first}, {last}]"


def token_text(model: HookedVideoTransformer, token: int) -> str:
    """A token as text; its id where the model has no tokenizer, or the text is blank."""
    if model.tokenizer is None:
        return str(token)
    return model.shown(token).strip() or str(token)


def spelt(ids: list[int], tokenizer: Any) -> tuple[str, list[tuple[int, int]]]:
    """The text of some tokens, and which characters (first, one past last) each of them holds."""
    covers, complete, text = [], 0, ""
    for n in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:n], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        covers.append((complete, len(text)))
        complete = len(text.rstrip(_UNFINISHED))
    return text, covers
