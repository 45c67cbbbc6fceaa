"""What a patched run is measured by: how far the answer goes back and forth between two runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from videolens.errors import VideolensError, near
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt

METRICS = {"logit difference": "logit_diff", "probability": "probability", "kl": "kl"}
"""Metrics by name, and the columns they are in."""

LEAST = {"logit_diff": 1e-3, "probability": 1e-5, "kl": 1e-6}
"""Runs that are nearer than this, by column, differ by rounding only: no effect can be measured between them."""


@dataclass(frozen=True)
class Contrast:
    """The clean answer's token, and the tokens it is held against."""

    positive: int
    negative: tuple[int, ...]

    def logit_difference(self, logits: Float[Tensor, "run d_vocab"]) -> Float64[Tensor, " run"]:
        """Logit of the clean answer minus that of the other answer, the best of them where there are several."""
        wide = logits.double()
        return wide[:, self.positive] - wide[:, list(self.negative)].max(dim=-1).values

    def probability(self, logits: Float[Tensor, "run d_vocab"]) -> Float64[Tensor, " run"]:
        """Probability of the clean answer among all tokens."""
        return logits.double().softmax(-1)[:, self.positive]


def kl_divergence(source: Float[Tensor, " d_vocab"], logits: Float[Tensor, "run d_vocab"]) -> Float64[Tensor, " run"]:
    """KL(source ‖ run) of the next token's distributions, in nats: 0 where a run predicts as the source run does."""
    expected = source.double().log_softmax(-1)
    return (expected.exp() * (expected - logits.double().log_softmax(-1))).sum(-1).clamp(min=0.0)


def normalised(column: str, values: Float64[Tensor, " run"], *, base: float, source: float) -> Float64[Tensor, " run"]:
    """0: as the run that is patched, 1: as the run it is patched from; NaN where those two do not differ (`LEAST`)."""
    if abs(source - base) < LEAST[column]:
        return torch.full_like(values, torch.nan)
    return (values - base) / (source - base)


def contrast_of(
    model: HookedVideoTransformer, clean: Prompt, corrupted: Prompt, answers: Sequence[int | str] | None
) -> Contrast:
    """Which tokens the logit difference is between.

    1. `answers`, where they are given: the first minus the second.
    2. Else the clean prompt's answer minus the corrupted one's, where both are known and differ.
    3. Else the clean prompt's answer minus the best of its other options.

    Raises:
        VideolensError: none of these is possible; `answers` are not two different tokens of the vocabulary.
    """
    if answers is not None:
        return _given(model, answers)
    if clean.answer_token is None:
        raise VideolensError(
            "the clean prompt's answer is not known, so there is no logit difference: give the Question an answer, or "
            "answers=(token, token), the clean answer's first token and the other's, as ids or as text"
        )
    if corrupted.answer_token not in (None, clean.answer_token):
        return Contrast(clean.answer_token, (int(corrupted.answer_token or 0),))
    others = tuple(token for token in clean.option_tokens if token != clean.answer_token)
    if not others:
        known = "is not known" if corrupted.answer_token is None else "is the clean one's too"
        raise VideolensError(
            f"the corrupted prompt's answer {known}, and there are no other options to hold against it: give "
            "answers=(token, token), the clean answer's first token and another"
        )
    return Contrast(clean.answer_token, others)


def _given(model: HookedVideoTransformer, answers: Sequence[int | str]) -> Contrast:
    if isinstance(answers, str) or len(answers) != 2:
        raise VideolensError(f"answers is {answers!r}: give two, the clean answer's token and the other's")
    tokens = [model.to_single_token(each) if isinstance(each, str) else int(each) for each in answers]
    for token in tokens:
        if not 0 <= token < model.cfg.d_vocab:
            raise VideolensError(f"token {token} is outside the vocabulary of {model.cfg.d_vocab}")
    if tokens[0] == tokens[1]:
        raise VideolensError(f"answers are {answers!r}, one token: their logits never differ; give two")
    return Contrast(tokens[0], (tokens[1],))


def metric_column(metric: str) -> str:
    """The column of a metric.

    Raises:
        VideolensError: no such metric; the message lists them.
    """
    if metric not in METRICS:
        raise VideolensError(near(metric, METRICS, kind="metric"))
    return METRICS[metric]
