"""What an intervention does to attention, as additive masks that the original model in transformers takes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from videolens.errors import VideolensError, check_whole
from videolens.model.decoder.gates import check_gates
from videolens.model.decoder.masks import MaskPoint, masked
from videolens.prompt.prompt import Prompt

Additive = Float[Tensor, "one heads_or_1 query key"]
_POINT = re.compile(r"blocks\.(\d+)\.attn\.hook_(mask|gate)")


class AsAttentionMask:
    """Gives an intervention its form as attention masks."""

    def as_attention_mask(
        self, prompt: Prompt, *, n_heads: int | None = None, dtype: torch.dtype = torch.float32
    ) -> dict[int, Additive]:
        """See `attention_masks`, for this intervention alone."""
        return attention_masks([self], prompt, n_heads=n_heads, dtype=dtype)


def attention_masks(
    interventions: Any, prompt: Prompt, *, n_heads: int | None = None, dtype: torch.dtype = torch.float32
) -> dict[int, Additive]:
    """The masks that reproduce interventions in the original model, by 0-based layer: causal, and what they change.

    A mask is added to the scores before the softmax: 0 where a query may attend, the lowest number of `dtype` where it
    may not, and log(factor) where a `Scale` acts. They are on the CPU. A layer that is not in the result keeps the
    model's own mask. In transformers a decoder layer takes its mask as `attention_mask`: give it by a forward pre-hook
    on the layer.

    1. Hook functions of each layer are called as a forward calls them: on a causal mask, and on gates of 1.
    2. mask and gates become one sum: log(gate), and the lowest number where the mask or the gate is closed.
    3. Layers whose functions are the same share one tensor.

    Args:
        interventions: what holds at once: an object with `.hooks(prompt)`, or several.
        prompt: one; its positions are those of the original's sequence, video tokens in place.
        n_heads: of the model, needed where an intervention acts on some heads only.
        dtype: of the masks: that of the model.

    Raises:
        VideolensError: something that is no intervention, or a dtype of no floats; one acts on something else than
            attention, such as a `Patch` or an `Add`; on some heads, and n_heads is not given; or it leaves a row
            without any key, for which transformers computes no answer.
        PromptError: several prompts.
    """
    prompt = prompt.single("an attention mask")
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise VideolensError(
            f"dtype {dtype!r:.40} of an attention mask: give that of the model, such as torch.bfloat16"
        )
    if n_heads is not None:
        check_whole("n_heads", n_heads, least=1)
    at = _by_layer([interventions] if hasattr(interventions, "hooks") else interventions, prompt, n_heads)
    known: dict[tuple[tuple[int, ...], ...], Additive] = {}
    found: dict[int, Additive] = {}
    for layer, functions in sorted(at.items()):
        same = tuple(tuple(map(id, some)) for some in functions.values())
        if same not in known:
            mask, by_layer = _sum(layer, functions, prompt, n_heads, dtype)
            found[layer] = mask
            if not by_layer:
                known[same] = mask
        else:
            found[layer] = known[same]
    return found


def _by_layer(given: Any, prompt: Prompt, n_heads: int | None) -> Mapping[int, dict[str, list[Callable[..., Any]]]]:
    """Hook functions on masks and on gates, of each layer that has any."""
    if not isinstance(given, (list, tuple)) or not all(callable(getattr(each, "hooks", None)) for each in given):
        raise VideolensError(
            f"interventions are {given!r:.80}: give an object with .hooks(prompt), such as a Knockout, or "
            "several in a list"
        )
    at: dict[int, dict[str, list[Callable[..., Any]]]] = defaultdict(lambda: {"mask": [], "gate": []})
    for each in given:
        for name, function in each.hooks(prompt):
            match = _POINT.fullmatch(name) if isinstance(name, str) else None
            if match is None:
                raise VideolensError(
                    f"{type(each).__name__} acts at {name!r:.80}: an attention mask says who may attend to whom, and "
                    "cannot do what is done elsewhere; run it here, with model.run_with_hooks"
                )
            if n_heads is None and getattr(function, "heads", None) is not None:
                raise VideolensError(
                    f"{type(each).__name__} acts on heads {list(function.heads)} only: give n_heads=model.cfg.n_heads"
                )
            at[int(match[1])][match[2]].append(function)
    return at


def _sum(
    layer: int, functions: dict[str, list[Callable[..., Any]]], prompt: Prompt, n_heads: int | None, dtype: torch.dtype
) -> tuple[Additive, bool]:
    """The mask of a layer, and whether a function has asked which layer it is."""
    positions = torch.arange(prompt.shape[1])
    heads = n_heads or 1
    points = {
        kind: [MaskPoint(f"blocks.{layer}.attn.hook_{kind}", heads) for _ in some] for kind, some in functions.items()
    }
    allowed = masked(points["mask"], functions["mask"], positions, positions, heads)
    gates: Tensor = torch.ones(1, 1, len(positions), len(positions))
    for point, function in zip(points["gate"], functions["gate"], strict=True):
        gates = gates.clone()
        changed = function(gates, hook=point.at(positions, positions))
        gates = gates if changed is None else changed
        check_gates(gates, f"blocks.{layer}.attn.hook_gate", 1, heads, (len(positions), len(positions)))
    _check(layer, allowed & (gates > 0))
    lowest = torch.finfo(dtype).min
    additive = gates.log().masked_fill(~allowed, lowest).clamp(min=lowest).to(dtype)
    return additive, any(point.read_layer for some in points.values() for point in some)


def _check(layer: int, is_open: Bool[Tensor, "one any_head query key"]) -> None:
    """Raises:
    VideolensError: a row has no key left.
    """
    if len(empty := (~is_open.any(-1)).nonzero()):
        raise VideolensError(
            f"in layer {layer} position {int(empty[0, -1])} may attend to nothing, not even itself: here it reads "
            "zeros, and in transformers a row without keys is a mean over all of them, or not a number; leave it a key"
        )
