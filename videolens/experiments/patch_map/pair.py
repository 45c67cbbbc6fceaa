"""A clip and its counterfactual as two prompts, and what is measured of runs of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from videolens.errors import VideolensError
from videolens.experiments.common.words import token_text
from videolens.experiments.patch_map.contrast import METRICS, Contrast, kl_divergence, metric_column, normalised
from videolens.experiments.patch_map.table import DIRECTIONS
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt
from videolens.question import Question

Given = Question | Prompt


@dataclass(frozen=True, eq=False)
class Pair:
    """Two single prompts of one layout."""

    clean: Prompt
    corrupted: Prompt

    @property
    def question(self) -> Question | None:
        """What the pair is named by."""
        return self.clean.question

    def ordered(self, direction: str) -> tuple[Prompt, Prompt]:
        """(the prompt that is patched, the prompt that it is patched from)."""
        base, source = DIRECTIONS[direction]
        return getattr(self, base), getattr(self, source)


def pair_of(given: object) -> tuple[Given, Given]:
    """(clean, corrupted), as it is given.

    Raises:
        VideolensError: it is no such pair.
    """
    if isinstance(given, (tuple, list)) and len(given) == 2:
        clean, corrupted = given
        if isinstance(clean, (Question, Prompt)) and isinstance(corrupted, (Question, Prompt)):
            return clean, corrupted
    raise VideolensError(f"a pair is (clean, corrupted), two Questions or Prompts; got {given!r}")


def pairs_of(clean: Given | Iterable[Sequence[Given]], corrupted: Given | None) -> Iterable[tuple[Given, Given]]:
    """One pair, or several; a list is looked through before anything runs.

    Raises:
        VideolensError: neither is given.
    """
    if isinstance(clean, (Question, Prompt)):
        if not isinstance(corrupted, (Question, Prompt)):
            raise VideolensError(f"corrupted is {corrupted!r}: give the clean question's counterfactual")
        return [(clean, corrupted)]
    if corrupted is not None or not isinstance(clean, Iterable):
        raise VideolensError("give one clean and one corrupted Question or Prompt, or one list of such pairs")
    return [pair_of(pair) for pair in clean] if isinstance(clean, Sequence) else map(pair_of, clean)


def measure(
    model: HookedVideoTransformer,
    contrast: Contrast,
    base: Float[Tensor, " d_vocab"],
    source: Float[Tensor, " d_vocab"],
    patched: Float[Tensor, "patch d_vocab"],
    direction: str,
) -> tuple[list[list[float]], dict[str, Any]]:
    """What runs of a pair are measured by.

    Args:
        model: the model.
        contrast: the tokens that are compared.
        base, source: logits of the run that is patched and of the run that it is patched from.
        patched: logits of every patched run.
        direction: which of the two is the clean one.

    Returns:
        The last six columns of a `PatchRow` for every patched run, and those fields of the `RunRow` that are measured.
    """
    logits = torch.cat([base[None].double(), source[None].double(), patched.double()])
    values = {
        "logit_diff": contrast.logit_difference(logits),
        "probability": contrast.probability(logits),
        "kl": kl_divergence(source.double(), logits),
    }
    measured = [values[column][2:] for column in METRICS.values()]
    measured += [normalised(column, v[2:], base=float(v[0]), source=float(v[1])) for column, v in values.items()]
    run: dict[str, Any] = {
        "clean_answer": token_text(model, contrast.positive),
        "other_answer": " or ".join(token_text(model, token) for token in contrast.negative),
        "kl": float(values["kl"][0]),
    }
    for row, which in enumerate(DIRECTIONS[direction]):
        run |= {f"{column}_{which}": float(values[column][row]) for column in ("logit_diff", "probability")}
        run[f"says_{which}"] = token_text(model, int(model.chosen(logits[row])))
    return torch.stack(measured, dim=1).tolist(), run


def effect_index(metric: str) -> int:
    """Where the effect on a metric stands among the numbers that `measure` gives for a run.

    Raises:
        VideolensError: no such metric; the message lists them.
    """
    return len(METRICS) + list(METRICS.values()).index(metric_column(metric))


def strongest(effects: Sequence[float], n_units: int) -> list[int]:
    """The patch with the largest effect in each layer; `n_units` in each, one layer after the other."""
    layers = range(0, len(effects), n_units)
    return [max(range(first, first + n_units), key=lambda i: abs(effects[i])) for first in layers]
