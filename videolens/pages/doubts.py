"""Why an answer may be none: what to say before a map of it is believed."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from videolens.datasets.shapes_words import foreign_words
from videolens.drawing.html import render
from videolens.engine import last_logits
from videolens.model.checkpoints.bundled import bundled_names
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt
from videolens.question import Question

_LIKELY = 0.5
"""Probability from which on no other token can be likelier."""


def doubts(model: HookedVideoTransformer, name: str, question: Question, prompt: Prompt) -> list[str]:
    """What is doubtful about a model's answer to one question; empty: nothing.

    1. Options: the token that is ranked first of all is none of theirs.
    2. The answer has a probability below one half.
    3. A bundled model is asked what it was never taught.

    Args:
        model: the model.
        name: by which it was loaded.
        question: what it is asked.
        prompt: the question, laid out for this model.
    """
    said = []
    shares = last_logits(model, prompt).softmax(-1)
    first = int(model.chosen(shares))
    written = f"{model.shown(first)!r} ({shares[first]:.2f})"
    # 1.
    options = list(prompt.option_tokens) if question.options else []
    best = max(options, key=lambda token: float(shares[token]), default=first)
    if options and first not in options:
        said.append(
            f"No option is ranked first: the model would rather write {written}, and all options together have a "
            f"probability of {float(shares[options].sum()):.2g}. It may not have understood that it is to choose."
        )
    # 2.
    if shares[best] < _LIKELY:
        said.append(
            f"The answer has a probability of {float(shares[best]):.2g}: the model is not sure of it, and a small "
            "change can give another."
        )
    # 3.
    if name in bundled_names() and (foreign := foreign_words(question.stem, question.options or ())):
        listed = ", ".join(f"“{text}”" for text in foreign[:3])
        listed += f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        said.append(
            f"The bundled model {name!r} knows moving shapes and the questions of its benchmark (docs/bundled.md), and "
            f"was never asked this: {listed}. Its answer means nothing."
        )
    return said


def doubts_section(doubts: Sequence[str]) -> Markup:
    """A box with what is doubtful; nothing if nothing is."""
    return render(__file__, "doubts.html", doubts=doubts)
