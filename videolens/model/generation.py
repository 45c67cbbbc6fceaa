"""Greedy decoding with a key/value cache; hook functions see every step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int64
from torch import Tensor

from videolens.errors import ModelError
from videolens.model.rows import KeyValues
from videolens.prompt import Prompt

if TYPE_CHECKING:
    from videolens.model.running import Running

__all__ = ["Generation", "generate"]


@dataclass(frozen=True, eq=False)
class Generation:
    """What a model wrote.

    Attributes:
        tokens: the generated ids [batch new], the end-of-sequence token included; after it a row is filled up with it.
        texts: the generated text per row, without special tokens; empty strings where the model has no tokenizer.
    """

    tokens: Int64[Tensor, "batch new"]
    texts: tuple[str, ...]

    def __iter__(self) -> Iterator[Any]:
        """Text and tokens, for `text, tokens = model.generate(prompt)`; the texts of a batch of several."""
        return iter((self.text if len(self.texts) == 1 else self.texts, self.tokens))

    @property
    def text(self) -> str:
        """The generated text of a batch of one."""
        if len(self.texts) != 1:
            raise ModelError(f"a generation for {len(self.texts)} prompts has several texts: use .texts")
        return self.texts[0]


@torch.no_grad()
def generate(
    model: Running,
    prompt: Prompt | Int64[Tensor, "batch pos"],
    max_new_tokens: int = 32,
    *,
    stop_at_eos: bool = True,
) -> Generation:
    """See `HookedVideoTransformer.generate`."""
    n_pos = prompt.shape[1]
    if max_new_tokens < 1:
        raise ModelError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    if n_pos + max_new_tokens > model.cfg.n_ctx:
        raise ModelError(
            f"a prompt of {n_pos} tokens and {max_new_tokens} new ones do not fit the context of {model.cfg.n_ctx}: "
            f"ask for at most {model.cfg.n_ctx - n_pos} new tokens, or shorten the prompt"
        )
    ends = torch.tensor(model.eos_tokens if stop_at_eos else [], dtype=torch.int64, device=model.frontend.device)
    past = KeyValues()
    residual, at = model.enter(prompt, past=past)
    done = torch.zeros(prompt.shape[0], dtype=torch.bool, device=residual.device)
    written: list[Tensor] = []
    while True:
        # Only the newest row is read out: a prompt's other logits are of no use here.
        logits = model.read_out(model.run_layers(residual, at)[:, -1:], at.last)
        token = logits[:, -1].argmax(-1)
        if written:
            token = torch.where(done, written[-1], token)
        written.append(token)
        done = done | torch.isin(token, ends)
        if len(written) == max_new_tokens or bool(done.all()):
            break
        residual, at = model.enter_token(token, position=n_pos + len(written) - 1, past=past)
    tokens = torch.stack(written, dim=1)
    texts = [""] * len(tokens)
    if model.tokenizer is not None:
        texts = model.tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return Generation(tokens=tokens, texts=tuple(texts))
