"""Anchors: the words of an answer whose probability is followed. In the paper, its verbs.

Map the Flow, appendix D. A word that is several tokens is followed by its first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from operator import index
from typing import Any, NamedTuple

from videolens.errors import SelectionError, near
from videolens.experiments.common.words import spelt, token_text
from videolens.experiments.generation.verbs import is_verb
from videolens.model.transformer import HookedVideoTransformer

VERBS = "verbs"

Finder = Callable[[list[str]], Iterable[int]]
"""The words of an answer → the places, from 0, of those that are anchors."""


class Anchor(NamedTuple):
    """A word of an answer: as it stands there, and the place of its first token in the answer, from 0."""

    word: str
    place: int


def check_anchors(given: Any, model: HookedVideoTransformer) -> None:
    """Raises:
    SelectionError: something else than "verbs", words, places of tokens or a function; words of a model that has no
        tokenizer.
    """
    if callable(given) or (isinstance(given, str) and given == VERBS):
        by_place = False
    elif isinstance(given, str):
        raise SelectionError(near(given, (VERBS,), kind="kind of anchors") + f". Words are a list: [{given!r}]")
    else:
        listed = list(given) if isinstance(given, Sequence) else []
        by_place = bool(listed) and all(isinstance(one, int) and not isinstance(one, bool) for one in listed)
        if not by_place and not (listed and all(isinstance(one, str) and one.strip() for one in listed)):
            raise SelectionError(
                f"anchors are {given!r:.80}: give 'verbs', a list of words, a list of places of the answer's tokens "
                "counted from 0, or a function of the answer's words"
            )
        if by_place and (min(listed) < 0 or len(set(listed)) < len(listed)):
            raise SelectionError(f"places of tokens count from 0, and each is named once, got {listed}")
    if not by_place and model.tokenizer is None:
        raise SelectionError(
            f"{model.cfg.model_name!r} has no tokenizer, so its answers have no words: give places of tokens, such as "
            "anchors=[2, 5, 8]"
        )


def anchors_in(tokens: Sequence[int], given: Any, model: HookedVideoTransformer) -> list[Anchor]:
    """The anchors of an answer, in order.

    Args:
        tokens: ids of the answer.
        given: what `check_anchors` lets pass. Words are whole ones, in upper or lower case; of places, those that the
            answer is long enough for.
        model: whose tokens they are.

    Raises:
        SelectionError: a function gives something else than places of words.
    """
    if not isinstance(given, str) and not callable(given) and isinstance(given[0], int):
        places = sorted(place for place in given if place < len(tokens))
        return [Anchor(token_text(model, tokens[place]), place) for place in places]
    words = words_in(tokens, model.tokenizer)
    if callable(given):
        chosen = _chosen(given, [one.word for one in words])
    else:
        known = None if given == VERBS else {word.strip().lower() for word in given}
        chosen = [
            i for i, one in enumerate(words) if (is_verb(one.word) if known is None else one.word.lower() in known)
        ]
    of_token = {words[i].place: words[i] for i in reversed(chosen)}  # of words that begin in one token, the first
    return [of_token[place] for place in sorted(of_token)]


def words_in(tokens: Sequence[int], tokenizer: Any) -> list[Anchor]:
    """The words of an answer: runs of letters and digits, and what an apostrophe or a hyphen joins.

    Languages that are written without spaces have no such words: give places.
    """
    text, covers = spelt(list(tokens), tokenizer)
    found = []
    for match in re.finditer(r"\w(?:[\w'’-]*\w)?", text):
        place = next(i for i, (first, past) in enumerate(covers) if first <= match.start() < past)
        found.append(Anchor(match[0], place))
    return found


def described(given: Any) -> str:
    """Anchors in words, for the settings of a result."""
    if isinstance(given, str):
        return given
    if callable(given):
        return f"by the function {getattr(given, '__name__', type(given).__name__)}"
    kind = "tokens" if isinstance(given[0], int) else "words"
    return f"{kind}: {', '.join(map(str, given))}"


def _chosen(function: Finder, words: list[str]) -> list[int]:
    try:
        places = sorted({index(place) for place in function(list(words))})
    except TypeError as error:
        raise SelectionError(
            f"the function of anchors must give the places of words, counted from 0, such as [1, 4] ({error})"
        ) from error
    if places and not 0 <= places[0] <= places[-1] < len(words):
        raise SelectionError(
            f"the function of anchors names the words {places}, but the answer has {len(words)}: 0 … {len(words) - 1}"
        )
    return places
