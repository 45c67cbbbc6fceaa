"""Prompt templates: data that says which words stand around a question, and the role of every piece of text."""

from __future__ import annotations

import string
from dataclasses import dataclass, replace
from typing import NamedTuple

from videolens.errors import PromptError, near
from videolens.question import Question
from videolens.spans import ROLES

__all__ = ["TEMPLATES", "Piece", "PromptTemplate", "template_named"]


class Piece(NamedTuple):
    """A stretch of prompt text with one role; `option` counts options from 0 and is −1 elsewhere."""

    text: str
    role: str
    option: int = -1


@dataclass(frozen=True)
class PromptTemplate:
    """The words around a question, as (role, text) pairs in order.

    A text may hold `{system}`, `{video}` (alone, once), `{stem}`, `{options}` (alone) and `{completion}`.
    `{completion}` stands for a space and the beginning of the answer, or for nothing.

    Attributes:
        name: how it is asked for.
        system: the instruction in the place of `{system}`.
        multiple_choice: the pieces of a question with options.
        open_ended: the pieces of a question without.
        option: one option; `{letter}` and `{option}` are filled in.
        between: what stands between two options (its role is "header").
        letter_prefix: what stands between the end of a multiple-choice prompt and the letter that answers it.

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

    def __post_init__(self) -> None:
        for pieces in (self.multiple_choice, self.open_ended):
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
        return self._fill(self.multiple_choice, question, placeholder)

    def continuations(self, question: Question) -> tuple[str | None, tuple[str, ...]]:
        """What follows the prompt if the answer is right (None if that is not known), and for each choice."""
        if question.style == "open-ended":
            answer = None if question.answer is None else " " + question.answer
            return answer, tuple(" " + choice for choice in question.choices)
        letters = tuple(self.letter_prefix + string.ascii_uppercase[i] for i in range(len(question.choices)))
        return None if question.answer_index is None else letters[question.answer_index], letters

    def _fill(self, pieces: tuple[tuple[str, str], ...], question: Question, placeholder: str) -> list[Piece]:
        values = {
            "system": self.system,
            "video": placeholder,
            "stem": question.stem,
            "completion": f" {question.completion}" if question.completion else "",
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


def _vicuna_like(name: str, system: str, *, before_options: str, between: str) -> PromptTemplate:
    """Prompts as Map the Flow gives them to its Vicuna models, with different ways of listing the options."""
    head = (("system", "{system}\n USER: "), ("video", "{video}"), ("glue", "\n USER: "))
    asked = (("header", "Question: "), ("stem", "{stem}"))
    suffix = " \nOnly give the best option. ASSISTANT:Best option:("
    return PromptTemplate(
        name=name,
        system=system,
        multiple_choice=(*head, *asked, ("header", before_options), ("option", "{options}"), ("suffix", suffix)),
        open_ended=(*head, *asked, ("suffix", " ASSISTANT:{completion}")),
        between=between,
    )


MVBENCH_INSTRUCTION = (
    "Carefully watch the video and pay attention to the cause and sequence of events, the detail and movement of "
    "objects, and the action and pose of persons. Based on your observations, select the best option that accurately "
    "addresses the question."
)

TEMPLATES = {
    template.name: template
    for template in (
        _vicuna_like("vicuna", MVBENCH_INSTRUCTION, before_options="\nOptions:\n", between="\n"),
        _vicuna_like("shapes", "Watch the video and answer the question.", before_options=" Options: ", between=" "),
    )
}
"""By name. "vicuna": LLaVA-NeXT-Video, MVBench instruction, one option a line; "shapes": the bundled models."""


def template_named(name: str) -> PromptTemplate:
    """A template by its name.

    Raises:
        PromptError: there is none; the message lists those there are.
    """
    if name not in TEMPLATES:
        raise PromptError(near(name, TEMPLATES, kind="template"))
    return TEMPLATES[name]
