"""Where a word of the question stands: its tokens' positions, found through the text that the tokens spell.

A word may be several tokens, and a token may hold the space before its word, so neither is looked up among the other:
tokens are decoded, one more at a time, and those whose characters lie in the word are the word's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from videolens.errors import SelectionError, check_text
from videolens.experiments.common.words import spelt
from videolens.prompt.prompt import Prompt
from videolens.prompt.selections import is_selection

Decode = Callable[[list[int]], str]


def check_words(words: str | Sequence[str]) -> tuple[str, ...]:
    """One name or several, as a tuple.

    Raises:
        SelectionError: none, something that is no text, or one name twice.
    """
    names = (words,) if isinstance(words, str) else tuple(words) if isinstance(words, Iterable) else ()
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise SelectionError(f"words are {words!r}: name words of the question or selections, such as 'true option'")
    for name in names:
        check_text("the word", name, error=SelectionError)
    if len(set(names)) < len(names):
        raise SelectionError(f"words are {list(names)!r}: one of them is there twice")
    return names


def rows_of(prompt: Prompt, name: str, tokenizer: Any, *, occurrence: int | None = None) -> Int64[Tensor, " row"]:
    """Positions of a selection, or of a word of the question.

    1. A name of the token map ("true option", "last", "stem | options") is that selection.
    2. Anything else is a word, or several in a row, of the stem or an option, whole and in either case; "word last" is
       the word where "last" is the selection.
    3. Every token that holds a character of the word belongs to it. Where the word occurs several times, so do all
       occurrences, or the one that is asked for.

    Args:
        prompt: a single prompt.
        name: what to find.
        tokenizer: the model's; only for words.
        occurrence: 0 is the first one in the prompt, −1 the last; None: all.

    Raises:
        SelectionError: the prompt has no such selection or word; the message lists the words that it has.
    """
    # 1.
    tokens = prompt.tokens
    if is_selection(name):
        found = tokens[name]
        if len(found) == 0:
            raise SelectionError(f"{name!r}: no position of this prompt is that")
        return found
    # 2.
    word = name.removeprefix("word ")
    if tokenizer is None:
        raise SelectionError(f"{name!r} is no selection, and without a tokenizer no word can be found: {tokens.names}")
    spans = [span for span in _spans(prompt) if len(span)]
    texts, hits = [], []
    for span in spans:
        text, covers = spelt(prompt.input_ids[0, span.to(prompt.device)].tolist(), tokenizer)
        texts.append(text)
        for match in re.finditer(_whole(word), text, flags=re.IGNORECASE):
            # 3.
            inside = [first < match.end() and past > match.start() for first, past in covers]
            hits.append(span[torch.tensor(inside)])
    if not hits:
        known = list(dict.fromkeys(re.findall(r"\w(?:[\w'’-]*\w)?", " ".join(texts))))
        listed = ", ".join(map(repr, known)) or "none"
        raise SelectionError(
            f"the question has no word {word!r}; its words: {listed}. Selections such as 'true option' or 'last' "
            "are known as well"
        )
    if occurrence is None:
        return torch.cat(hits).unique()
    if not -len(hits) <= occurrence < len(hits):
        raise SelectionError(f"the word {word!r} occurs {len(hits)} times: occurrence={occurrence} is none of them")
    return hits[occurrence]


def _spans(prompt: Prompt) -> list[Int64[Tensor, " n"]]:
    """The stem and each option, in order: no word reaches from one into the next."""
    tokens = prompt.tokens
    options = [tokens[f"option {chr(ord('A') + i)}"] for i in range(tokens.n_options)]
    return sorted([tokens["stem"], *options], key=lambda span: int(span[0]) if len(span) else -1)


def _whole(word: str) -> str:
    """A pattern for a whole word: "sea" is not in "search"."""
    before = r"(?<!\w)" if re.match(r"\w", word) else ""
    after = r"(?!\w)" if re.search(r"\w$", word) else ""
    return before + r"\s+".join(map(re.escape, word.split())) + after
