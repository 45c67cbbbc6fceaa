"""Words of a question are tokenised as words: `</s>` in a stem is five characters, not the end of a sequence.

What a template, a layout or a chat template writes may hold control tokens (turn markers, placeholders, ends); what a
question says may not become one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from videolens.errors import PromptError

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")  # how a character that has no token is written
_BRACKETS = re.compile(r"[<\[{|].*[>\]}|]$", re.DOTALL)
_FIRST_MARK = 0xF0000  # of a plane that no language uses


class Coded(NamedTuple):
    """Text as tokens: their ids, and the characters (first, one past last) that each covers."""

    ids: list[int]
    offsets: list[tuple[int, int]]


class Coder:
    """A tokenizer as it is, for questions whose words hold no control token."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def mark(self, text: str) -> str:
        """Text that is not the question's, as `encode` wants it."""
        return text

    def encode(self, text: str) -> Coded:
        """Tokens of text.

        Raises:
            PromptError: words of the question come out as a control token.
        """
        coded = self.tokenizer(text, return_offsets_mapping=True)
        return Coded(coded["input_ids"], coded["offset_mapping"])


class PlainCoder(Coder):
    """A tokenizer whose control tokens are written with one character each that stands for nothing else.

    1. In all text but the question's, each control token is written as its character (`mark`).
    2. A copy of the tokenizer knows these characters where the tokenizer knows the control tokens. So it splits text at
       the same places, and the question's words are words.
    3. Their ids are translated back.
    """

    def __init__(self, tokenizer: Any, control: dict[str, int]) -> None:
        super().__init__(tokenizer)
        self._control = control
        self._marks = {token: chr(_FIRST_MARK + i) for i, token in enumerate(sorted(self._control))}
        self._ids = {self._marks[token]: number for token, number in self._control.items()}
        self._found = re.compile("|".join(map(re.escape, sorted(self._control, key=len, reverse=True))))
        self._copy = _copy_with(tokenizer, self._marks)

    def mark(self, text: str) -> str:
        """Step 1."""
        return self._found.sub(lambda match: self._marks[match[0]], text)

    def encode(self, text: str) -> Coded:
        """Steps 2 and 3."""
        coded = self._copy.encode(text)
        names = {number: token for token, number in self._control.items() if number != self.tokenizer.unk_token_id}
        ids = []
        for number, token, (first, past) in zip(coded.ids, coded.tokens, coded.offsets, strict=True):
            own = self._ids.get(token.strip())  # some control tokens take the spaces beside them
            if own is None and number in names and past > first:
                raise PromptError(
                    f"the question's words hold {names[number]!r}, which {type(self.tokenizer).__name__} reads as a "
                    "control token even where it stands as text: write it otherwise, such as with a space inside"
                )
            ids.append(number if own is None else own)
        return Coded(ids, coded.offsets)


def control_tokens(tokenizer: Any) -> dict[str, int]:
    """Tokens that steer a model rather than being words: the special ones, and added ones in brackets."""
    added = tokenizer.added_tokens_decoder.items()
    steering = {str(each): number for number, each in added if each.special or _BRACKETS.match(str(each))}
    return {token: number for token, number in steering.items() if not _BYTE.fullmatch(token)}


def coder_for(tokenizer: Any, placeholder: str, words: Iterable[str | None]) -> Coder:
    """How to tokenise a prompt with these words of a question in it.

    Args:
        tokenizer: a fast one.
        placeholder: the model's video token as text.
        words: stem, options, and what else a question says.

    Raises:
        PromptError: the words hold a control token, and this tokenizer cannot read it as text.
    """
    control = control_tokens(tokenizer) | {placeholder: tokenizer.convert_tokens_to_ids(placeholder)}
    steering = set(control.values()) - {tokenizer.unk_token_id}
    several = [text for text in words if text]
    if not any(steering & set(ids) for ids in _ids(tokenizer, several)):
        return Coder(tokenizer)
    return PlainCoder(tokenizer, control)


# Making a copy reads the whole vocabulary. It is kept as long as its tokenizer, to which it must not refer.
_copies: WeakKeyDictionary[Any, dict[tuple[str, ...], Any]] = WeakKeyDictionary()


def _copy_with(tokenizer: Any, marks: dict[str, str]) -> Any:
    """The tokenizer's backend, with these characters in the place of its control tokens; for other tokens, another."""
    copies = _copies.setdefault(tokenizer, {})
    if (tokens := tuple(marks)) not in copies:
        spec = json.loads(tokenizer.backend_tokenizer.to_str())
        for added in spec["added_tokens"]:
            added["content"] = marks.get(added["content"], added["content"])
        spec["truncation"] = spec["padding"] = None
        copies[tokens] = type(tokenizer.backend_tokenizer).from_str(json.dumps(spec))
    return copies[tokens]


def _ids(tokenizer: Any, several: Sequence[str]) -> list[list[int]]:
    return tokenizer(list(several), add_special_tokens=False)["input_ids"] if several else []
