"""Keywords: words that the lens is searched for, and what counts as having found one.

Map the Flow, section "Logit lens on video tokens": a keyword is its first sub-word. Tokenizers that begin words with a
mark for the space have two tokens for such a sub-word, with and without the mark; both count.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from videolens.errors import VideolensError, check_text, near

Groups = dict[str, tuple[str, ...]]
"""Keywords by the name of their group."""

ACTION_SEQUENCE: Groups = {
    "spatial": (
        *("bag", "bed", "blanket", "book", "box", "cabinet", "camera", "clothes", "cup", "door", "floor", "food"),
        *("glass", "laptop", "paper", "person", "phone", "sandwich", "table"),
    ),
    "temporal": ("close", "down", "drink", "eat", "hold", "on", "open", "put", "sit", "take", "throw", "tidy", "up"),
}
"""The paper's, for TVBench's Action Sequence."""

SHAPES: Groups = {
    "colours": ("red", "orange", "yellow", "green", "blue", "purple"),
    "shapes": ("circle", "square", "triangle", "cross"),
    "backgrounds": ("night", "grass", "sand", "sea", "snow", "brick"),
    "places": ("top", "bottom", "left", "right"),
    "motion": ("up", "down", "clockwise", "anticlockwise"),
    "numbers": ("one", "two", "three", "four"),
}
"""For the bundled models and their benchmark. "left" and "right" are both places and directions of motion."""

KEYWORD_SETS = {"action sequence": ACTION_SEQUENCE, "shapes": SHAPES}
"""Keyword lists by name."""

_BEFORE = "the "


def grouped(words: str | Sequence[str] | Mapping[str, Sequence[str]]) -> Groups:
    """Keywords by group: the name of one of `KEYWORD_SETS`, a list (one group, "keywords"), or lists by group.

    Raises:
        VideolensError: an unknown set, no words, or one that is there twice.
    """
    if isinstance(words, str):
        if words not in KEYWORD_SETS:
            raise VideolensError(near(words, KEYWORD_SETS, kind="set of keywords") + "; a single word: [word]")
        return KEYWORD_SETS[words]
    groups = words if isinstance(words, Mapping) else {"keywords": words}
    if strings := [name for name, group in groups.items() if isinstance(group, str)]:
        raise VideolensError(f"the keywords of {strings[0]!r} are one string: give a list of words")
    found = {str(name): tuple(group) for name, group in groups.items()}
    every = [word for group in found.values() for word in group]
    if not every or len(set(every)) != len(every):
        raise VideolensError(f"keywords must name at least one word, each once, got {every}")
    return found


def subwords(tokenizer: Any, d_vocab: int, groups: Groups) -> dict[str, str]:
    """Keyword → its first sub-word.

    Raises:
        VideolensError: a keyword that is not in the vocabulary.
    """
    return {word: first_subword(tokenizer, d_vocab, word) for group in groups.values() for word in group}


def known_words(tokenizer: Any, d_vocab: int, groups: Groups) -> tuple[Groups, tuple[str, ...]]:
    """The keywords that are in a vocabulary, by group, and those that are not."""
    missing = []
    for word in [word for group in groups.values() for word in group]:
        try:
            first_subword(tokenizer, d_vocab, word)
        except VideolensError:
            missing.append(word)
    found = {name: tuple(word for word in group if word not in missing) for name, group in groups.items()}
    return {name: group for name, group in found.items() if group}, tuple(missing)


def first_subword(tokenizer: Any, d_vocab: int, word: str) -> str:
    """The first sub-word of a word that stands behind a space, without the space.

    1. Tokenize the word behind another one; its first token is the first that covers one of its characters.
    2. A token for a single byte, for anything unknown, or for one letter of a longer word stands for no word.

    Without a tokenizer, words are token ids as text.

    Raises:
        VideolensError: the keyword is not in the vocabulary; near words are named.
    """
    if tokenizer is None:
        if not (isinstance(word, str) and word.isdecimal() and int(word) < d_vocab):
            raise VideolensError(
                f"the keyword {word!r} is no token id, and the model has no tokenizer: give ids as text, '0' … "
                f"'{d_vocab - 1}', or add tokenizer files to the checkpoint"
            )
        return word
    if not isinstance(word, str) or not word.strip():
        raise VideolensError(f"a keyword is a word, got {word!r}")
    check_text("the keyword", word)
    word = word.strip()
    # 1.
    coded = tokenizer(_BEFORE + word, add_special_tokens=False, return_offsets_mapping=True)
    spans = zip(coded["input_ids"], coded["offset_mapping"], strict=True)
    token, past = next((token, past) for token, (_, past) in spans if past > len(_BEFORE))
    piece = word[: past - len(_BEFORE)]
    # 2.
    text = str(tokenizer.convert_ids_to_tokens(token))
    byte = re.fullmatch(r"<0x[0-9A-Fa-f]{2}>", text) is not None
    if byte or token in tokenizer.all_special_ids or (len(piece) == 1 and len(word) > 1):
        known = {str(tokenizer.decode([each])).strip() for each in tokenizer.get_vocab().values()}
        words = sorted(each for each in known if len(each) > 2 and each.isalpha())
        began = "bytes" if byte else f"{text!r}, which stands for no word"
        raise VideolensError(
            near(word, words, kind="keyword", where=f"the tokenizer's vocabulary of {len(known)}")
            + f" (it begins with {began})"
        )
    return piece
