"""A prompt with the beginning of its answer after it, as one sequence: what decoding reads step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import index
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from videolens.errors import PromptError
from videolens.model.generation import check_fits
from videolens.model.running import Running
from videolens.prompt.prompt import Prompt


@torch.no_grad()
def prompt_with_answer(model: Running, prompt: Prompt, tokens: Int64[Tensor, " n"] | Sequence[Any]) -> Prompt:
    """A single prompt with the first tokens of an answer after it; "last" is the newest of them.

    Its logits are those of the step of `generate` that comes after these tokens, to rounding. Its token map has them as
    "response", and single ones as "response 0", "response 0-4", …. What the prompt knew of the right first token is
    left out: here another one is asked for.

    >>> written = model.generate(prompt, 20).tokens[0]
    >>> vl.sweep(model, model.prompt_with_answer(prompt, written[:7]), [vl.Knockout("video", "response", layers=2)])

    Args:
        prompt: made by this model.
        tokens: their ids, in order; none gives the prompt back.

    Raises:
        PromptError: a batch of several prompts, or something else than token ids.
        ModelError: ids outside the vocabulary, more tokens than the context holds, or so many that the rotary
            frequencies of the whole prompt would change.
    """
    prompt = prompt.single("an answer that goes on").to(model.frontend.device)
    given = tokens.tolist() if isinstance(tokens, Tensor) else tokens
    try:
        written = [index(token) for token in given]
    except TypeError as error:
        raise PromptError(f"the answer's tokens are {tokens!r:.80}: give their ids, such as [319, 27]") from error
    if not written:
        return prompt
    # one more is asked for
    check_fits(model, prompt, len(written) + 1, True)
    ids = torch.tensor([written], device=prompt.device)
    model.check_ids(ids)
    residual = model.frontend.embed_text(ids)
    along = prompt.next_positions[0] + torch.arange(len(written), device=prompt.device)
    (cos, sin), (next_cos, next_sin) = prompt.rotary, model.frontend.rotary(residual, along[None])
    texts = None
    if model.tokenizer is not None:
        names = model.tokenizer.convert_ids_to_tokens(written)
        texts = [f"<{token}>" if name is None else name for name, token in zip(names, written, strict=True)]
    return replace(
        prompt,
        input_ids=torch.cat([prompt.input_ids, ids], dim=1),
        tokens=prompt.tokens.answered(len(written), texts=texts),
        residual=torch.cat([prompt.residual, residual], dim=1),
        rotary=(torch.cat([cos, next_cos], dim=1), torch.cat([sin, next_sin], dim=1)),
        deepstack=tuple(torch.cat([one, torch.zeros_like(residual)], dim=1) for one in prompt.deepstack),
        next_position=(prompt.next_positions[0] + len(written),),
        answer_token=None,
        option_tokens=(),
        text=None,
    )
