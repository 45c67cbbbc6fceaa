"""A compiled pathway: a forward, and decoding, that compute only what a pathway leaves, exactly.

batch: prompts; row: positions computed in a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from videolens.cache import Recent
from videolens.errors import ModelError, check_whole
from videolens.model.acting import several
from videolens.model.compiled.liveness import plan_rows
from videolens.model.compiled.opening import Opening, is_by_roles, layout_of
from videolens.model.compiled.row_plan import LayerRows, RowPlan
from videolens.model.cost import Cost
from videolens.model.decoder.config import check_causal
from videolens.model.decoder.kernels import KeyValuePiece
from videolens.model.decoder.rows import KeyValues, Rows, is_listened_to
from videolens.model.decoder.views import HeadView, views_of
from videolens.model.generation import Generation, check_fits, written
from videolens.model.running import Running
from videolens.model.sampling import Drawing
from videolens.model.turns import a_run
from videolens.prompt.prompt import Prompt
from videolens.prompt.tokens import TokenMap

_PLANS = 64 * 2**20  # bytes of plans that are kept for prompts of the same layout


class CompiledPathway:
    """A model that computes only what a pathway leaves, exactly: `fast = model.compile(pathway)`.

    Rows that nobody reads any more are dropped, each layer gathers the keys that are open, and decoding keeps the keys
    and values that the answer may read. It shares the model's weights. Without gradients, but for `traced`.

    Attributes:
        model: whose weights run.
        pathway: what is open: a `Pathway`, or one or several interventions that only cut attention.
    """

    def __init__(self, model: Running, pathway: Any) -> None:
        check_pathway(model, pathway)
        self.model, self.pathway = model, pathway
        # of interventions that say so, prompts of one layout have one plan
        self._shared = all(getattr(one, "by_layout", False) for one in several(pathway))
        self._by_roles = is_by_roles(pathway)
        self._by_layout: Recent[RowPlan] = Recent(_PLANS, lambda plan: plan.n_bytes)
        self._plans: WeakKeyDictionary[TokenMap, dict[tuple[int, torch.device], RowPlan]] = WeakKeyDictionary()
        self._newest: RowPlan | None = None

    def __call__(self, prompt: Prompt) -> Float[Tensor, "batch 1 d_vocab"]:
        """Logits at the last position [batch 1 d_vocab], equal to those of the model under the pathway's masks.

        Raises:
            ModelError: not a prompt, one of another model, or a model that somebody listens to.
        """
        with torch.no_grad():
            return self.traced(prompt)

    def traced(self, prompt: Prompt) -> Float[Tensor, "batch 1 d_vocab"]:
        """The same logits, with gradients to the prompt's residual where they are switched on.

        Raises:
            ModelError: as a call.
        """
        return _forward(self.model, self, prompt)

    def generate(
        self,
        prompt: Prompt,
        max_new_tokens: int = 32,
        *,
        stop_at_eos: bool = True,
        do_sample: bool | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> Generation:
        """As `model.generate(prompt, max_new_tokens, pathway)`, with the same settings and the same tokens.

        Raises:
            ModelError: see `model.generate`; not a prompt, or a model that somebody listens to.
        """
        drawing = Drawing(do_sample=do_sample, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
        return _generate(self.model, self, prompt, max_new_tokens, drawing, stop_at_eos)

    def plan(self, prompt: Prompt, max_new_tokens: int = 0) -> RowPlan:
        """What is computed of a prompt, and of a generation if tokens follow; `print` it. Nothing is run.

        Worked out once for as long as the prompt's token map lives; under pathways and knockouts, once for prompts
        whose positions are alike.

        Raises:
            ModelError: not a prompt, or a pathway that acts on more than who may attend to whom.
            SelectionError: the prompt lacks what the pathway names.
        """
        check_prompt(prompt)
        check_whole("max_new_tokens", max_new_tokens, error=ModelError)
        known = self._plans.setdefault(prompt.tokens, {})
        n_new, device = max(max_new_tokens - 1, 0), self.model.frontend.device  # the last token is not read again
        if (n_new, device) not in known:
            make = partial(self._planned, prompt, n_new, device)
            layout = layout_of(prompt.tokens, by_roles=self._by_roles)
            key = (layout, n_new, device) if self._shared else None
            known[n_new, device] = self._by_layout.get(key, make) if key else make()
        self._newest = known[n_new, device]
        return self._newest

    def _planned(self, prompt: Prompt, n_new: int, device: torch.device) -> RowPlan:
        cfg = self.model.cfg
        opening = Opening(cfg, self.pathway, prompt, n_new)
        return plan_rows(opening, Cost.of(cfg), cfg.n_layers, prompt.shape[1] - 1, device)

    def __str__(self) -> str:
        name = getattr(self.pathway, "name", None) or "knockouts"
        head = f"{name!r} compiled for {self.model.cfg.model_name or 'a model'} of {self.model.cfg.n_layers} layers"
        if self._newest is None:
            return f"{head}; nothing has run yet: print(fast.plan(prompt)) says what is computed of a prompt"
        return f"{head}; of the prompt that ran last:\n{self._newest}"


def check_pathway(model: Running, pathway: Any) -> None:
    """Raise an error if a model cannot run a pathway by itself.

    Raises:
        ModelError: no pathway, a model whose attention is not causal, or one that somebody listens to.
        VideolensError: a pathway for another depth.
    """
    each = list(several(pathway))
    if not each or not all(callable(getattr(one, "hooks", None)) for one in each):
        raise ModelError(
            f"{pathway!r} is no pathway: give model.compile(vl.Pathway.closed(n_layers={model.cfg.n_layers}, …)), or "
            "Knockouts; (PyTorch's own compiler is torch.compile(model))"
        )
    for one in each:
        if callable(check := getattr(one, "check", None)):
            check(n_layers=model.cfg.n_layers, n_heads=model.cfg.n_heads)
    check_causal(model.cfg, "a compiled pathway")
    check_unwatched(model)


def check_prompt(given: Any) -> None:
    """Raise a `ModelError` for anything but a prompt."""
    if not isinstance(given, Prompt):
        raise ModelError(
            f"a compiled pathway runs on a Prompt, got {type(given).__name__}: model.prompt(question) makes one"
        )


def check_unwatched(model: Running) -> None:
    """Raise a `ModelError` if a hook point has hook functions: what they act on may not be computed."""
    if watched := [name for name, point in model.hook_dict.items() if is_listened_to(point)]:
        raise ModelError(
            f"hook functions listen to {', '.join(watched[:3])}, and a compiled pathway does not compute all that they "
            "would see: remove them (model.reset_hooks()), or run the model itself under pathway.hooks(prompt)"
        )


@a_run()
def _forward(model: Running, fast: CompiledPathway, prompt: Prompt) -> Float[Tensor, "batch 1 d_vocab"]:
    check_unwatched(model)
    return _Narrow(model, fast.plan(prompt), prompt).first()[:, None]


@a_run()
@torch.no_grad()
def _generate(
    model: Running, fast: CompiledPathway, prompt: Prompt, max_new_tokens: int, drawing: Drawing, stop_at_eos: bool
) -> Generation:
    check_unwatched(model)
    check_prompt(prompt)
    check_fits(model, prompt, max_new_tokens, stop_at_eos)
    decoding = _Narrow(model, fast.plan(prompt, max_new_tokens), prompt)
    return written(model, decoding, max_new_tokens, drawing, stop_at_eos=stop_at_eos)


@dataclass
class _OpenKeys(KeyValues):
    """Keys and values of which a prompt leaves only those that later tokens read.

    Attributes:
        kept: layer → which of the prompt's keys there (as indices).
    """

    kept: dict[int, Tensor] = field(default_factory=dict)

    def join(
        self, layer: int, k: Float[Tensor, "batch row n_kv d_head"], v: Float[Tensor, "batch row n_kv d_head"]
    ) -> list[KeyValuePiece]:
        """Of the prompt, all of them, of which the open ones are kept; of later tokens, those and theirs."""
        if layer in self.layers:
            return super().join(layer, k, v)
        self.layers[layer] = (k[:, self.kept[layer]], v[:, self.kept[layer]])
        return [(k, v)]


class _Narrow:
    """Decoding that computes the rows of a plan."""

    def __init__(self, model: Running, plan: RowPlan, prompt: Prompt) -> None:
        self._model, self._plan, self._prompt = model, plan, prompt
        kept = {layer: one.kept for layer, one in enumerate(plan.layers) if one.kept is not None}
        self._past = _OpenKeys(kept=kept) if kept else None

    def first(self) -> Float[Tensor, "batch d_vocab"]:
        """The rows of the plan, layer after layer; what is not wanted any more does not go on."""
        residual, whole = self._model.enter(self._prompt)
        residual = residual[:, self._plan.layers[0].entering]
        known: dict[LayerRows, Rows] = {}
        for block, one in zip(self._model.blocks, self._plan.layers, strict=True):
            if one not in known:
                at = one.entering
                cos, sin = whole.cos[:, at], whole.sin[:, at]
                rows = Rows(at, at, cos, sin, past=self._past, asked=one.asked, views=one.views)
                known[one] = replace(rows, deepstack=whole.deepstack)
            residual = block(residual, known[one])
        return self._model.read_out(residual, known[one].queries)[:, -1]

    def next(self, token: Int64[Tensor, " batch"], new: int) -> Float[Tensor, "batch d_vocab"]:
        """One row per prompt, which reads in every layer what is open to it."""
        assert self._past is not None
        n_pos, rotary = self._prompt.shape[1], [first + new for first in self._prompt.next_positions]
        residual, whole = self._model.enter_token(token, position=n_pos + new, past=self._past, rotary=rotary)
        known: dict[tuple[Any, ...], Rows] = {}
        for layer, (block, one) in enumerate(zip(self._model.blocks, self._plan.layers, strict=True)):
            key = (one,) if one.open_later else (one, self._plan.opening.kind(layer))
            if key not in known:
                known[key] = self._newest(layer, one, whole)
            residual = block(residual, known[key])
        return self._model.read_out(residual, whole)[:, -1]

    def _newest(self, layer: int, one: LayerRows, whole: Rows) -> Rows:
        """The row of a new token in a layer, with the keys that the cache holds there and the new ones."""
        n_pos, n_keys = self._plan.opening.n_pos, len(whole.keys)
        keys = torch.cat([one.cached, whole.keys[n_pos:]])
        views: Sequence[HeadView] | None = None
        if not one.open_later:
            row = whole.rows.cpu()
            views = views_of(self._plan.opening(layer, row, n_keys)[..., keys.cpu()], row, keys.cpu())
        return Rows(whole.rows, keys, whole.cos, whole.sin, past=self._past, views=views)
