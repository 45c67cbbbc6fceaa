"""A question about a video, with or without options."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import signature
from typing import Any, Literal, get_args

from videolens.errors import QuestionError, UnknownNameError, check_text, near
from videolens.notebook import Shown
from videolens.video import edits
from videolens.video.video import Video

Style = Literal["multiple choice", "open-ended"]
_OF_PROMPTS = (
    "tokens",
    "input_ids",
    "residual",
    "shape",
    "single",
    "device",
    "option_tokens",
    "answer_token",
    "rotary",
)


@dataclass(frozen=True, eq=False)
class Question(Shown):
    """A question about a video.

    Attributes:
        video: what is asked about.
        stem: the bare question ("Which way does the red circle move?").
        options: what to choose from, without letters. None (the default) makes the question open-ended; afterwards
            this is always a tuple, empty for an open-ended question.
        answer: the right option, word for word and without its letter; None if not known. Of an open-ended question:
            the words that should follow.
        task: the kind of question ("moving direction").
        id: unique within its data set.
        completion: beginning of the answer to an open-ended question ("The red circle moves to the").
        reversed_answer: the right answer when the video runs backwards; None if not known.
        alternatives: of an open-ended question, the answers it decides between; they are not shown to the model.
        meta: anything else a data set knows.
        style: "multiple choice" or "open-ended"; None: told from `options`. No options at all (`[]`) and no completion
            is a multiple-choice question that lacks its options, which becomes an error when it is asked.

    Raises:
        QuestionError: empty stem, more than 26 options, one that is there twice, an answer that is not among them,
            something else than text.
    """

    video: Video
    stem: str
    options: Sequence[str] | None = None
    answer: str | None = None
    task: str = ""
    id: str = ""
    completion: str | None = None
    reversed_answer: str | None = None
    alternatives: Sequence[str] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    style: Style | None = None

    def __getattr__(self, name: str) -> Any:
        """Nothing: what only a prompt has is an error that says how to make one."""
        if name in _OF_PROMPTS:
            raise UnknownNameError(
                f"a Question has no {name} before a model has laid it out: give prompt = model.prompt(question)"
            )
        raise AttributeError(f"'Question' object has no attribute {name!r}")

    def __post_init__(self) -> None:
        for name in ("options", "alternatives"):
            if isinstance(getattr(self, name), str):
                raise QuestionError(f"{name} is one string, {getattr(self, name)!r}: give a list of strings")
            if not isinstance(getattr(self, name), Iterable) and getattr(self, name) is not None:
                raise QuestionError(f"{name} is {getattr(self, name)!r:.80}: give a list of strings")
            vars(self)[name] = None if getattr(self, name) is None else tuple(getattr(self, name))
        if self.style not in (None, *get_args(Style)):
            raise QuestionError(near(self.style, get_args(Style), kind="style of question"))
        open_ended = self.options is None or (len(self.options) == 0 and self.completion is not None)
        style = self.style or ("open-ended" if open_ended else "multiple choice")
        vars(self).update(style=style, options=tuple(self.options or ()), alternatives=tuple(self.alternatives or ()))
        if isinstance(self.meta, Mapping):
            vars(self).update(meta=dict(self.meta))
        self._check()

    def _check(self) -> None:
        if not isinstance(self.video, Video):
            raise QuestionError(f"the video is {self.video!r}: give a Video, such as Video.from_file(path)")
        for text in (self.stem, *(self.options or ()), *self.alternatives):
            if not isinstance(text, str):
                raise QuestionError(f"stem and options must be text, got {text!r}: write str({text!r})")
        for name in ("answer", "completion", "reversed_answer", "task", "id"):
            value = getattr(self, name)
            if not isinstance(value, str) and (value is not None or name in ("task", "id")):
                raise QuestionError(f"{name} must be text, got {value!r}: write str({value!r}), or leave it out")
        for name in ("task", "id"):  # what tables and files call it
            check_text(name, getattr(self, name), error=QuestionError)
        if not isinstance(self.meta, Mapping):
            raise QuestionError(f"meta is {self.meta!r}: give what else is known by name, a mapping")
        if not self.stem.strip():
            raise QuestionError(f"question {self.id!r} has an empty stem: say what is asked")
        if len(self.choices) > 26:
            raise QuestionError(f"{self._name} has {len(self.choices)} options: letters reach from A to Z, at most 26")
        if twice := repeated(self.choices):
            raise QuestionError(
                f"{self._name} has options that stand there twice, {twice}, among {list(self.choices)}: which of them "
                "is meant cannot be told; give each once"
            )
        for what in ("answer", "reversed_answer"):
            answer = getattr(self, what)
            if answer is not None and self.choices and answer not in self.choices:
                raise QuestionError(
                    f"{self._name}: the {what.replace('_', ' ')} {answer!r} is not among the options "
                    f"{list(self.choices)}: give one of them, word for word and without its letter"
                )

    @property
    def _name(self) -> str:
        return f"question {(self.id or self.stem)!r}"

    @property
    def choices(self) -> tuple[str, ...]:
        """What the answer is one of, whether shown (options) or not (alternatives)."""
        return tuple(self.options or self.alternatives)

    @property
    def answer_index(self) -> int | None:
        """Place of the answer among the choices, counted from 0; None if it is not known."""
        return self.choices.index(self.answer) if self.answer is not None and self.choices else None

    @property
    def letter(self) -> str:
        """Letter of the right option.

        Raises:
            QuestionError: there are no options, or the answer is not known.
        """
        if not self.options:
            raise QuestionError(f"{self._name} has no options, so its answer has no letter")
        if self.answer_index is None:
            raise QuestionError(
                f"{self._name} has no answer, so no letter: give Question(…, answer=one of its options)"
            )
        return string.ascii_uppercase[self.answer_index]

    def reversed(self) -> Question:
        """The same question about the video played backwards, with the answer that is then right.

        Raises:
            QuestionError: that answer is not known.
        """
        if self.reversed_answer is None:
            raise QuestionError(
                f"{self._name} does not say what is right backwards: give Question(…, reversed_answer=…)"
            )
        return replace(self, video=self.video.reversed(), answer=self.reversed_answer, reversed_answer=self.answer)

    def open_ended(self) -> Question:
        """The same question without its options shown: the model answers, or completes `completion`, in words."""
        return replace(self, options=(), alternatives=self.choices, style="open-ended")

    def with_video(self, video: Video) -> Question:
        """The same question about another video. The answer stays what it was: `counterfactual` asks anew."""
        return replace(self, video=video)

    def counterfactual(self, edit: str, *settings: Any, answer: str | None = None, **named: Any) -> Question:
        """The same question about an edited video: the other half of a pair whose token maps are equal.

        An answer that may no longer be right is not kept. What is right after "reversed" the question may know
        (`reversed_answer`); after any other edit it is known only if it is given here, else None.

        >>> question.counterfactual("swapped", 0, 3)
        >>> question.counterfactual("frozen", frame=2, answer="none")
        >>> question.counterfactual("replaced", 0, 4, other.video)

        Args:
            edit: a method of `Video`: "reversed", "shuffled", "frozen", "blank", "swapped", "replaced".
            settings: what that method takes.
            named: the same by keyword.
            answer: the option that is right for the edited video, if it is known.

        Raises:
            QuestionError: an unknown edit, settings that it does not take, or an answer that is not among the options.
            VideoError: settings of the wrong kind; frame numbers are checked when frames are first looked at.
        """
        if edit not in edits.NAMES:
            raise QuestionError(near(edit, edits.NAMES, kind="edit of a video"))
        change = getattr(self.video, edit)
        try:
            signature(change).bind(*settings, **named)
        except TypeError as error:
            takes = ", ".join(map(str, signature(change).parameters.values())).replace("'", "")
            raise QuestionError(f"{edit!r} takes ({takes}): {error}") from error
        back = edit == "reversed"
        known = self.reversed_answer if back and answer is None else answer
        return replace(
            self, video=change(*settings, **named), answer=known, reversed_answer=self.answer if back else None
        )


def repeated(options: Sequence[str]) -> list[str]:
    """The options that stand there more than once, but for spaces around them, sorted."""
    times = Counter(option.strip() for option in options)
    return sorted(option for option, n in times.items() if n > 1)
