"""Decoding with a key/value cache, greedy or drawn.

Hook functions see every step, and interventions hold in every step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from inspect import signature
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from videolens.errors import ModelError, check_flag, check_whole
from videolens.model.acting import functions_of
from videolens.model.decoder.rows import KeyValues, Rows
from videolens.model.running import Running
from videolens.model.sampling import Drawing, refuse_others
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

    def __repr__(self) -> str:
        """In one line: the beginning of what was written."""
        said = ", ".join(f"{text!r:.80}" for text in self.texts[:2]) + (", …" if len(self.texts) > 2 else "")
        return f"Generation({said}; {self.tokens.shape[0]} × {self.tokens.shape[1]} tokens)"

    def __iter__(self) -> Iterator[Any]:
        """Text and tokens, for `text, tokens = model.generate(prompt)`; the texts of a batch of several."""
        return iter((self.text if len(self.texts) == 1 else self.texts, self.tokens))

    @property
    def text(self) -> str:
        """The generated text of a batch of one."""
        if len(self.texts) != 1:
            raise ModelError(f"a generation for {len(self.texts)} prompts has several texts: use .texts")
        return self.texts[0]


@runtime_checkable
class Decoding(Protocol):
    """How a prompt is run, and then one token after the other."""

    def first(self) -> Float[Tensor, "batch d_vocab"]:
        """Logits after the prompt."""
        ...

    def next(self, token: Int64[Tensor, " batch"], new: int) -> Float[Tensor, "batch d_vocab"]:
        """Logits after one more token per prompt, before which `new` others have been written."""
        ...


@a_run()
@torch.no_grad()
def generate(
    model: Running,
    prompt: Prompt | Int64[Tensor, "batch pos"] | str,
    max_new_tokens: int = 32,
    interventions: Any = (),
    *,
    stop_at_eos: bool = True,
    do_sample: bool | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    **others: Any,
) -> Generation:
    """Continuation with a key/value cache, greedy unless a setting of sampling is given.

    Hook functions act on the prompt and on every generated token.

    1. Everything is checked: numbers, interventions, names of hook points.
    2. One forward of the prompt leaves keys and values; its last row gives the first token.
    3. Each further token is one row, at the position after all before it, that reads the keys and values of those. An
       intervention's functions are called for this row as they are for the rows of the prompt.

    Args:
        prompt: what is continued: a prompt, token ids, or one text.
        max_new_tokens: at most so many.
        interventions: what holds meanwhile, all of it at once: objects with `.hooks(prompt)` (knockouts, patches),
            or (hook point, function) pairs. None of it is left afterwards.
        stop_at_eos: end a row at its end-of-sequence token.
        do_sample: draw tokens; None: if any of the following is given. (TransformerLens draws unless told not to.)
        temperature: logits are divided by it; 0: the likeliest token. None: 1.
        top_k: draw from the so many likeliest tokens.
        top_p: draw from the fewest likeliest tokens that together have this probability.
        seed: of the draws; None: of torch's own generator.
        others: settings that other packages have: an error that says what to write here.

    Raises:
        ModelError: the prompt and the new tokens do not fit the context, something that is no intervention, a setting
            of sampling that is out of range or would have no effect.
        VideolensError: an intervention on layers or heads that the model does not have.
    """
    refuse_others(others, tuple(signature(generate).parameters)[1:])
    drawing = Drawing(do_sample=do_sample, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    prompt = _continued(model, prompt)
    check_fits(model, prompt, max_new_tokens, stop_at_eos)
    functions = functions_of(model.cfg, prompt, interventions, called="interventions")
    with model.hooks(fwd_hooks=functions) if functions else nullcontext():
        return written(model, _Whole(model, prompt), max_new_tokens, drawing, stop_at_eos=stop_at_eos)


def written(
    model: Running, decoding: Decoding, max_new_tokens: int, drawing: Drawing, *, stop_at_eos: bool
) -> Generation:
    """Steps 2 and 3, once everything is checked: tokens are chosen until there are enough or every row has ended."""
    ends = torch.tensor(model.eos_tokens if stop_at_eos else [], dtype=torch.int64, device=model.frontend.device)
    logits = decoding.first()
    done = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
    chosen: list[Tensor] = []
    while True:
        token = drawing.choose(model.possible(logits), model.chosen)
        if chosen:
            token = torch.where(done, chosen[-1], token)
        chosen.append(token)
        done = done | torch.isin(token, ends)
        if len(chosen) == max_new_tokens or bool(done.all()):
            break
        logits = decoding.next(token, len(chosen) - 1)
    tokens = torch.stack(chosen, dim=1)
    texts = [""] * len(tokens)
    if model.tokenizer is not None:
        texts = model.tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return Generation(tokens=tokens, texts=tuple(texts))


@a_run()
@torch.no_grad()
def follow(
    model: Running, prompt: Prompt, tokens: Sequence[int], interventions: Any = ()
) -> tuple[Float[Tensor, " new"], bool]:
    """How likely given tokens are after a prompt: what `generate` would have chosen from, had it written these.

    Args:
        prompt: a single one.
        tokens: ids that follow it.
        interventions: what holds meanwhile, as in `generate`.

    Returns:
        The log-probability of every token, given those before it; and whether greedy decoding would write them.

    Raises:
        ModelError: no tokens, or more than fit the context; interventions as in `generate`.
        PromptError: a batch of several prompts.
    """
    prompt = prompt.single("a given answer")
    check_fits(model, prompt, len(tokens), True)
    functions = functions_of(model.cfg, prompt, interventions, called="interventions")
    found, greedy = [], True
    with model.hooks(fwd_hooks=functions) if functions else nullcontext():
        decoding: Decoding = _Whole(model, prompt)
        logits = decoding.first()
        for n, token in enumerate(tokens):
            logits = decoding.next(torch.tensor([tokens[n - 1]], device=logits.device), n - 1) if n else logits
            possible = model.possible(logits)
            found.append(possible[0].float().log_softmax(-1)[token])
            greedy &= int(model.chosen(possible)) == token
    return torch.stack(found), greedy


def _continued(model: Running, given: Any) -> Prompt | Int64[Tensor, "batch pos"]:
    """Step 1: what is continued, as a prompt or ids."""
    if isinstance(given, str):
        return model.to_tokens(given)
    if not isinstance(given, Prompt) and not (isinstance(given, Tensor) and given.ndim == 2):
        what = f"{given.dtype} {tuple(given.shape)}" if isinstance(given, Tensor) else type(given).__name__
        raise ModelError(
            f"a Prompt, token ids [batch pos] or one text is continued, got {what}; model.prompt(question) makes a "
            "prompt of a Question"
        )
    return given


def check_fits(
    model: Running, prompt: Prompt | Int64[Tensor, "batch pos"], max_new_tokens: int, stop_at_eos: bool
) -> None:
    """Raise a `ModelError` if so many new tokens cannot follow a prompt, or something else stands for a setting."""
    n_pos = prompt.shape[1]
    check_whole("max_new_tokens", max_new_tokens, least=1, error=ModelError)
    check_flag("stop_at_eos", stop_at_eos)
    if n_pos + max_new_tokens > model.cfg.n_ctx:
        raise ModelError(
            f"a prompt of {n_pos} tokens and {max_new_tokens} new ones do not fit the context of {model.cfg.n_ctx}: "
            f"ask for at most {model.cfg.n_ctx - n_pos} new tokens, or shorten the prompt"
        )
    _check_frequencies(model, prompt, max_new_tokens)


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


class _Whole:
    """Decoding that computes every row and keeps all keys and values; hook functions see every step."""

    def __init__(self, model: Running, prompt: Prompt | Int64[Tensor, "batch pos"]) -> None:
        self._model, self._prompt, self._past = model, prompt, KeyValues()
        of_prompt = (prompt.next_positions, prompt.padding) if isinstance(prompt, Prompt) else ((), ())
        self._after, self._padding = of_prompt

    def first(self) -> Float[Tensor, "batch d_vocab"]:
        """Logits after the prompt."""
        return self._newest(*self._model.enter(self._prompt, past=self._past))

    def next(self, token: Int64[Tensor, " batch"], new: int) -> Float[Tensor, "batch d_vocab"]:
        """Logits after the new-th token, counted from 0."""
        rotary = [first + new for first in self._after]
        entered = self._model.enter_token(
            token, position=self._prompt.shape[1] + new, past=self._past, rotary=rotary, padding=self._padding
        )
        return self._newest(*entered)

    def _newest(self, residual: Float[Tensor, "batch row d_model"], at: Rows) -> Float[Tensor, "batch d_vocab"]:
        # Only the newest row is read out: a prompt's other logits are of no use here.
        return self._model.read_out(self._model.run_layers(residual, at)[:, -1:], at.last)[:, -1]
