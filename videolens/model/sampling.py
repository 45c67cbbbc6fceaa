"""How the next token is chosen: the likeliest, or drawn. The names are TransformerLens' and transformers'."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from videolens.errors import ModelError, check_flag, check_whole, near

_ELSEWHERE = {
    "verbose": "nothing is printed: leave it out",
    "return_type": "a Generation has .text and .tokens: leave it out",
    "eos_token_id": "model.eos_tokens are those of the checkpoint; for others set model.ends",
    "use_past_kv_cache": "keys and values are always kept: leave it out",
    "prepend_bos": "tokenise first: model.generate(model.to_tokens(text, prepend_bos=…))",
    "padding_side": "prompts of unequal length: Prompt.batch([…])",
    "freq_penalty": "there is none here: write a hook function, or choose among samples",
    "repetition_penalty": "there is none here: write a hook function, or choose among samples",
    "max_length": "say how many new tokens: max_new_tokens",
    "num_beams": "there is no beam search here",
    "num_return_sequences": "one is drawn per prompt: prompt.repeated(n) is a batch of n",
    "pixel_values": "a Prompt holds them: model.prompt(question), or model.prompt_from_ids(ids, pixel_values)",
    "fwd_hooks": "give interventions=",
}


def refuse_others(others: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Raise a `ModelError` for settings that `generate` does not have; it says what to write in their place."""
    for name in others:
        said = (
            f"generate takes no {name}: {_ELSEWHERE[name]}" if name in _ELSEWHERE else near(name, known, kind="option")
        )
        raise ModelError(said)


@dataclass(frozen=True)
class Drawing:
    """How tokens are drawn: see `generate`. `do_sample` None: drawn if any of the others is given.

    Raises:
        ModelError: a value out of range, or one that would have no effect because nothing is drawn.
    """

    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    _generator: torch.Generator | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        given = [name for name in ("temperature", "top_k", "top_p", "seed") if getattr(self, name) is not None]
        if self.do_sample is not None:
            check_flag("do_sample", self.do_sample)
        if self.do_sample is False and given:
            raise ModelError(f"{', '.join(given)} would have no effect with do_sample=False: leave one of them out")
        for name in ("top_k", "seed"):
            if name in given:
                check_whole(name, getattr(self, name), least=int(name == "top_k"), error=ModelError)
        for name, most in (("temperature", math.inf), ("top_p", 1.0)):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            least = name == "temperature" and value == 0
            if name in given and not (number and math.isfinite(value) and (least or 0 < value <= most)):
                ends = "from 0 (the likeliest token) on" if name == "temperature" else "above 0, and at most 1"
                raise ModelError(f"{name} = {value!r}: give a number {ends}")
        if self.temperature == 0 and given != ["temperature"]:
            rest = ", ".join(name for name in given if name != "temperature")
            raise ModelError(f"{rest} would have no effect with temperature=0, which takes the likeliest token")
        seeded = None if self.seed is None else torch.Generator().manual_seed(self.seed)
        vars(self).update(_generator=seeded, do_sample=bool(given) if self.do_sample is None else self.do_sample)

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn."""
        return not self.do_sample or self.temperature == 0

    def choose(
        self, logits: Float[Tensor, "batch d_vocab"], likeliest: Callable[[Tensor], Tensor]
    ) -> Int64[Tensor, " batch"]:
        """One token per row. `likeliest`: gives the best of a row.

        1. Logits by temperature. 2. Only the `top_k` largest. 3. Of these, the fewest that together have `top_p`.
        4. Drawn on the CPU, so that a seed draws the same on any device from the same logits.
        """
        if self.greedy:
            return likeliest(logits)
        wide = logits.detach().double().cpu() / (1.0 if self.temperature is None else self.temperature)
        ranked, ids = wide.sort(dim=-1, descending=True, stable=True)
        if self.top_k is not None:
            ranked, ids = ranked[:, : self.top_k], ids[:, : self.top_k]
        shares = ranked.softmax(-1)
        if self.top_p is not None:
            shares = shares.masked_fill(shares.cumsum(-1) - shares >= self.top_p, 0.0)
        drawn = torch.multinomial(shares, 1, generator=self._generator)
        return ids.gather(-1, drawn)[:, 0].to(logits.device)
