"""Prompt templates: data that says which words stand around a question, and the role of every piece of text."""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from videolens.errors import PromptError, near
from videolens.prompt.selections import ROLES
from videolens.question import Question


class Piece(NamedTuple):
    """A stretch of prompt text with one role; `option` counts options from 0 and is −1 elsewhere."""

    text: str
    role: str
    option: int = -1


@dataclass(frozen=True)
class PromptTemplate:
    """The words around a question, as (role, text) pairs in order.

    A text may hold `{system}`, `{video}` (alone, once), `{stem}`, `{options}` (alone) and `{completion}`.
    `{completion}` stands for `space` and the beginning of the answer, or for nothing.

    Attributes:
        name: how it is asked for.
        system: the instruction in the place of `{system}`.
        multiple_choice: the pieces of a question with options; none: the template is for open-ended ones only.
        open_ended: the pieces of a question without.
        option: one option; `{letter}` and `{option}` are filled in.
        between: what stands between two options (its role is "header").
        letter_prefix: what stands between the end of a multiple-choice prompt and the letter that answers it.
        space: what stands between the end of an open-ended prompt and what answers it.

    Raises:
        PromptError: a piece has an unknown role, or the video or the options do not stand alone and once.
    """

    name: str
    system: str
    multiple_choice: tuple[tuple[str, str], ...]
    open_ended: tuple[tuple[str, str], ...]
    option: str = "({letter}) {option}"
    between: str = " "
    letter_prefix: str = ""
    space: str = " "

    def __post_init__(self) -> None:
        for pieces in filter(None, (self.multiple_choice, self.open_ended)):
            for role, _ in pieces:
                if role not in ROLES:
                    raise PromptError(f"template {self.name!r}: " + near(role, ROLES, kind="role"))
            alone = [("video", "{video}")] + [("option", "{options}")] * (pieces is self.multiple_choice)
            found = [piece for piece in pieces if piece[0] in ("video", "option") or "{video}" in piece[1]]
            if sorted(found) != sorted(alone):
                raise PromptError(f"template {self.name!r} needs each of {alone} as a piece exactly once: {pieces}")

    def with_system(self, system: str) -> PromptTemplate:
        """The same template with another instruction."""
        return replace(self, system=system)

    def with_texts(self, change: Callable[[str], str]) -> PromptTemplate:
        """The same template with every text of its own changed; a question's words stay as they are."""
        return replace(
            self,
            system=change(self.system),
            multiple_choice=tuple((role, change(text)) for role, text in self.multiple_choice),
            open_ended=tuple((role, change(text)) for role, text in self.open_ended),
            option=change(self.option),
            between=change(self.between),
            letter_prefix=change(self.letter_prefix),
            space=change(self.space),
        )

    def render(self, question: Question, *, placeholder: str = "<video>") -> list[Piece]:
        """The prompt of a question in pieces; joined, their texts are the prompt, with `placeholder` for the video.

        Raises:
            PromptError: a multiple-choice question has no options.
        """
        if question.style == "open-ended":
            return self._fill(self.open_ended, question, placeholder)
        if not question.options:
            raise PromptError(
                f"question {question.id or question.stem!r} is multiple choice but has no options: give "
                "Question(…, options=[…]), or leave options out (None) to ask it open-ended"
            )
        if not self.multiple_choice:
            raise PromptError(
                f"template {self.name!r} is for open-ended questions, and this one has options: ask "
                "question.open_ended(), or choose another template"
            )
        return self._fill(self.multiple_choice, question, placeholder)

    def continuations(self, question: Question) -> tuple[str | None, tuple[str, ...]]:
        """What follows the prompt if the answer is right (None if that is not known), and for each choice."""
        if question.style == "open-ended":
            space = " " if question.completion else self.space
            answer = None if question.answer is None else space + question.answer
            return answer, tuple(space + choice for choice in question.choices)
        letters = tuple(self.letter_prefix + string.ascii_uppercase[i] for i in range(len(question.choices)))
        return None if question.answer_index is None else letters[question.answer_index], letters

    def _fill(self, pieces: tuple[tuple[str, str], ...], question: Question, placeholder: str) -> list[Piece]:
        values = {
            "system": self.system,
            "video": placeholder,
            "stem": question.stem,
            "completion": f"{self.space}{question.completion}" if question.completion else "",
        }
        filled = []
        for role, text in pieces:
            if text == "{options}":
                for i, option in enumerate(question.choices):
                    filled += [Piece(self.between, "header")] if i else []
                    shown = self.option.format(letter=string.ascii_uppercase[i], option=option)
                    filled.append(Piece(shown, "option", i))
            else:
                filled.append(Piece(text.format(**values), role))
        return [piece for piece in filled if piece.text]
