"""Greedy decoding with a key/value cache; hook functions see every step, and interventions hold in every step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from videolens.errors import ModelError, check_flag, check_whole
from videolens.model.decoder.rows import KeyValues
from videolens.model.running import Running
from videolens.model.turns import a_run
from videolens.prompt.prompt import Prompt


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


@a_run()
@torch.no_grad()
def generate(
    model: Running,
    prompt: Prompt | Int64[Tensor, "batch pos"],
    max_new_tokens: int = 32,
    interventions: Any = (),
    *,
    stop_at_eos: bool = True,
) -> Generation:
    """Greedy continuation with a key/value cache. Hook functions act on the prompt and on every generated token.

    1. Everything is checked: numbers, interventions, names of hook points.
    2. One forward of the prompt leaves keys and values; its last row gives the first token.
    3. Each further token is one row, at the position after all before it, that reads the keys and values of those. An
       intervention's functions are called for this row as they are for the rows of the prompt.

    Args:
        prompt: what is continued.
        max_new_tokens: at most so many.
        interventions: what holds meanwhile, all of it at once: objects with `.hooks(prompt)` (knockouts, patches),
            or (hook point, function) pairs. None of it is left afterwards.
        stop_at_eos: end a row at its end-of-sequence token.

    Raises:
        ModelError: the prompt and the new tokens do not fit the context, something that is no intervention.
        VideolensError: an intervention on layers or heads that the model does not have.
    """
    if not isinstance(prompt, Prompt) and not (isinstance(prompt, Tensor) and prompt.ndim == 2):
        raise ModelError(
            f"what is continued is a Prompt, or token ids [batch pos], got {prompt!r:.80}; model.prompt(question) "
            "makes a prompt of a Question"
        )
    n_pos = prompt.shape[1]
    check_whole("max_new_tokens", max_new_tokens, least=1, error=ModelError)
    check_flag("stop_at_eos", stop_at_eos)
    if n_pos + max_new_tokens > model.cfg.n_ctx:
        raise ModelError(
            f"a prompt of {n_pos} tokens and {max_new_tokens} new ones do not fit the context of {model.cfg.n_ctx}: "
            f"ask for at most {model.cfg.n_ctx - n_pos} new tokens, or shorten the prompt"
        )
    _check_frequencies(model, prompt, max_new_tokens)
    ends = torch.tensor(model.eos_tokens if stop_at_eos else [], dtype=torch.int64, device=model.frontend.device)
    functions = _functions(model, prompt, interventions)
    with model.hooks(fwd_hooks=functions) if functions else nullcontext():
        tokens = _greedy(model, prompt, max_new_tokens, ends)
    texts = [""] * len(tokens)
    if model.tokenizer is not None:
        texts = model.tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return Generation(tokens=tokens, texts=tuple(texts))


def _check_frequencies(model: Running, prompt: Prompt | Int64[Tensor, "batch pos"], max_new_tokens: int) -> None:
    """Refuse to leave the positions up to which a prompt's rotary frequencies hold (Phi-3 with short and long factors).

    Beyond, the original runs the whole prompt again with the others, and what was written before is not what they give.
    """
    switch = model.frontend.rotary.switches_after
    firsts = prompt.next_positions if isinstance(prompt, Prompt) else (prompt.shape[1],)
    # the last new token is not read again
    across = [first for first in firsts if switch is not None and first <= switch < first + max_new_tokens - 1]
    if switch is not None and across:
        raise ModelError(
            f"a prompt of {max(across)} tokens and {max_new_tokens} new ones cross position {switch}, where this model "
            f"changes the rotary frequencies of all positions: ask for at most {switch - max(across) + 1} new tokens, "
            f"or make the prompt longer than {switch} tokens"
        )


def _greedy(
    model: Running, prompt: Prompt | Int64[Tensor, "batch pos"], max_new_tokens: int, ends: Int64[Tensor, " end"]
) -> Int64[Tensor, "batch new"]:
    """Steps 2 and 3."""
    n_pos = prompt.shape[1]
    past = KeyValues()
    residual, at = model.enter(prompt, past=past)
    after, padding = (prompt.next_positions, prompt.padding) if isinstance(prompt, Prompt) else ((), ())
    done = torch.zeros(prompt.shape[0], dtype=torch.bool, device=residual.device)
    written: list[Tensor] = []
    while True:
        # Only the newest row is read out: a prompt's other logits are of no use here.
        logits = model.read_out(model.run_layers(residual, at)[:, -1:], at.last)
        token = model.chosen(logits[:, -1])
        if written:
            token = torch.where(done, written[-1], token)
        written.append(token)
        done = done | torch.isin(token, ends)
        if len(written) == max_new_tokens or bool(done.all()):
            return torch.stack(written, dim=1)
        new = len(written) - 1
        residual, at = model.enter_token(
            token, position=n_pos + new, past=past, rotary=[first + new for first in after], padding=padding
        )


def _functions(
    model: Running, prompt: Prompt | Int64[Tensor, "batch pos"], interventions: Any
) -> list[tuple[str, Callable[..., Any]]]:
    """The hook functions of all interventions, in their order, once the model has what they act on."""
    if hasattr(interventions, "hooks") or not isinstance(interventions, Iterable) or isinstance(interventions, str):
        interventions = [interventions]
    functions: list[tuple[str, Callable[..., Any]]] = []
    for each in interventions:
        if hasattr(each, "hooks"):
            if not isinstance(prompt, Prompt):
                raise ModelError(f"{each!r} acts on a Prompt, and what is continued here are token ids: make a prompt")
            if hasattr(each, "check"):
                each.check(n_layers=model.cfg.n_layers, n_heads=model.cfg.n_heads)
            functions += each.hooks(prompt)
        elif isinstance(each, tuple) and len(each) == 2 and callable(each[1]):
            functions.append(each)
        else:
            raise ModelError(
                f"{each!r} is no intervention: give objects with .hooks(prompt), such as a Knockout, or pairs "
                "(hook point, function)"
            )
    return functions
