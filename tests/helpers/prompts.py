"""Small models and prompts for the tests of knockouts and tracing."""

from __future__ import annotations

from typing import Any

import torch

from helpers.models import tiny_inputs, tiny_llava_next_video
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt
from videolens.prompt.tokens import TokenMap

SPANS = {"stem": range(18, 20), "option A": range(20, 22), "option B": range(22, 24)}
"""Of the tiny prompt: text 0 … 3, 3 frames × 2 × 2 video tokens 4 … 15, glue 16 … 17, question, suffix 24."""
ROUNDING = 4e-5
"""What a float32 sum may differ by, taken in another order, in std of the logits: 7e-6 to 1.5e-5 on the CPUs seen."""


def tiny_model(*, seed: int = 0, tokenizer: Any = None) -> HookedVideoTransformer:
    """Three layers, four heads, random weights under which attention matters."""
    return HookedVideoTransformer.from_hugging_face(tiny_llava_next_video(seed=seed), tokenizer=tokenizer)


def tiny_prompt(
    model: HookedVideoTransformer, *, seed: int = 0, answer: int | None = 0, rows: int = 1, options: bool = True
) -> Prompt:
    """25 positions; the answer is option A, whose token is 5, and option B's is 6."""
    ids, _, pixels = tiny_inputs(seed=seed, rows=rows)
    spans = SPANS if options else {"stem": SPANS["stem"]}
    if answer is not None and options:
        at = "AB"[answer]
        spans = {"stem": spans["stem"], "true option": SPANS[f"option {at}"]}
        spans["false options"] = SPANS["option B" if at == "A" else "option A"]
    tokens = (5, 6) if options else ()
    return model.prompt_from_ids(
        ids, pixels, spans, option_tokens=tokens, answer_token=None if answer is None or not options else tokens[answer]
    )


def plain_prompt(tokens: TokenMap) -> Prompt:
    """A prompt that is nothing but its token map."""
    n = tokens.n_pos
    table = torch.zeros(1, n, 2)
    return Prompt(torch.zeros(1, n, dtype=torch.int64), tokens, torch.zeros(1, n, 2), (table, table))
