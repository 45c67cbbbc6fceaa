"""What a model chooses among the options of a question: the one place where answers are scored."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from videolens.engine import last_logits
from videolens.errors import QuestionError, VideolensError
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt


class Choice(NamedTuple):
    """A multiple-choice question, answered.

    Attributes:
        n_options: options to choose from.
        answer: letter of the right option.
        choice: letter of the option whose token has the largest logit *among the options' tokens*.
        correct: whether they are the same.
        first: whether the right option's token ranks first of the whole vocabulary.
        p_answer: probability of the right option's token among all tokens.
        option_first: whether the token that ranks first of the whole vocabulary is an option's.
        confidence: probability of the chosen option's token among the options' tokens.
    """

    n_options: int
    answer: str
    choice: str
    correct: bool
    first: bool
    p_answer: float
    option_first: bool
    confidence: float


def choice_of(logits: Float[Tensor, " d_vocab"], prompt: Prompt) -> Choice:
    """What the logits at the last position choose. The prompt has options and a known answer (`check_answerable`)."""
    tokens = list(prompt.option_tokens)
    assert prompt.answer_token is not None
    chosen, right = int(logits[tokens].argmax()), tokens.index(prompt.answer_token)
    best, letters = int(logits.argmax()), string.ascii_uppercase
    return Choice(
        n_options=len(tokens),
        answer=letters[right],
        choice=letters[chosen],
        correct=chosen == right,
        first=best == prompt.answer_token,
        p_answer=float(logits.softmax(-1)[prompt.answer_token]),
        option_first=best in tokens,
        confidence=float(logits[tokens].softmax(-1)[chosen]),
    )


def margins_of(logits: Float[Tensor, "batch d_vocab"], prompts: Sequence[Prompt]) -> Float[Tensor, " batch"]:
    """Logit of the right option minus that of the best other one."""
    found = []
    for one, prompt in zip(logits, prompts, strict=True):
        others = [token for token in prompt.option_tokens if token != prompt.answer_token]
        found.append(one[prompt.answer_token] - one[others].max())
    return torch.stack(found).float().cpu()


def check_answerable(prompt: Prompt, name: str) -> None:
    """Raises:
    QuestionError: the prompt has no options, or its answer is not known.
    VideolensError: some of its options begin with the same token.
    """
    if not prompt.option_tokens or prompt.answer_token is None:
        raise QuestionError(
            f"question {name!r} has {'no options' if not prompt.option_tokens else 'no known answer'}: accuracy is "
            "about multiple-choice questions whose answer is known"
        )
    if len(set(prompt.option_tokens)) != len(prompt.option_tokens):
        raise VideolensError(
            f"question {name!r}: some of its options begin with the same token, so the token at the last position does "
            "not tell them apart"
        )


def option_probabilities(model: HookedVideoTransformer, prompt: Prompt) -> Float[Tensor, " option"]:
    """Probability of every option's letter (or first token) at the last position of one prompt, among all tokens."""
    return last_logits(model, prompt).softmax(-1)[list(prompt.option_tokens)]
