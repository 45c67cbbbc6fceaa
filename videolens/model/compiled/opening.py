"""What a pathway leaves open, asked for some rows of some layers at a time.

batch: prompts that differ, or 1 for prompts of one layout; row, key: positions of the prompt and of what is generated.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from videolens.errors import ModelError
from videolens.model.acting import functions_of, several
from videolens.model.decoder.masks import MaskPoint, masked
from videolens.prompt.batched_tokens import TokenMaps, roles_of
from videolens.prompt.prompt import Prompt
from videolens.prompt.selections import PARTS, parts
from videolens.prompt.tokens import TokenMap

_MASK = re.compile(r"blocks\.(\d+)\.attn\.hook_mask")


class Opening:
    """Who may attend to whom in each layer, under an intervention that only cuts attention.

    Args:
        cfg: the model's configuration; its `n_layers` and `n_heads` are read.
        pathway: what cuts: an object with `.hooks(prompt)`, or several.
        prompt: what is run.
        n_new: positions after the prompt.

    Attributes:
        batch: prompts that differ; 1 if they have one layout.
        role: of every position [batch pos], an index into `ROLES`.

    Raises:
        ModelError: it acts on something else than who may attend to whom.
    """

    def __init__(self, cfg: Any, pathway: Any, prompt: Prompt, n_new: int) -> None:
        self.n_pos, self.n_new, self._n_heads = prompt.shape[1], n_new, cfg.n_heads
        tokens = prompt.tokens
        maps = tokens.maps if isinstance(tokens, TokenMaps) else (tokens,)
        alone = len(maps) == 1 or (isinstance(tokens, TokenMaps) and is_by_roles(pathway) and tokens.alike)
        if alone and isinstance(tokens, TokenMaps):
            maps = maps[:1]  # they differ in what the pathway does not ask for: one mask is all of theirs
            prompt = replace(prompt, tokens=maps[0])
        self.batch = len(maps)
        # not the maps: plans are kept for as long as these live
        self.role, self._frames = torch.stack([one.role for one in maps]), [one.frame for one in maps]
        self._padding = torch.tensor(prompt.padding or (0,))[:, None]
        functions: list[list[Callable[..., Any]]] = [[] for _ in range(cfg.n_layers)]
        for name, function in functions_of(cfg, prompt, pathway, called="pathway"):
            match = _MASK.fullmatch(name) if isinstance(name, str) else None
            if match is None:
                raise ModelError(
                    f"the pathway acts on {name}, but what is compiled may only cut attention, as a Pathway or "
                    "Knockouts do: apply the rest as interventions of the model itself"
                )
            functions[int(match[1])].append(function)
        self._functions = [tuple(each) for each in functions]
        self._by_layer: set[tuple[Callable[..., Any], ...]] = set()  # functions that have read the layer

    @cached_property
    def parts(self) -> Bool[Tensor, "part batch pos"]:
        """Which positions each part of a prompt has."""
        of = torch.stack([parts(role, frame) for role, frame in zip(self.role, self._frames, strict=True)])
        return torch.stack([of == part for part in range(len(PARTS))])

    def kind(self, layer: int) -> tuple[Any, ...]:
        """Equal for layers in which the same is open."""
        functions = self._functions[layer]
        return (functions, layer) if functions in self._by_layer else (functions,)

    def __call__(
        self, layer: int, rows: Int64[Tensor, " row"], n_keys: int
    ) -> Bool[Tensor, "batch_or_1 head_or_1 row key"]:
        """Which of the first `n_keys` positions some rows may attend to in a layer."""
        keys = torch.arange(n_keys)
        points = [MaskPoint(f"blocks.{layer}.attn.hook_mask", self._n_heads) for _ in self._functions[layer]]
        mask = masked(points, self._functions[layer], rows, keys, self._n_heads, self.batch)
        if any(point.read_layer for point in points):
            self._by_layer.add(self._functions[layer])
        if self.batch == 1:
            return mask
        seen = (rows >= self._padding)[:, :, None] & (keys >= self._padding)[:, None]
        return mask & seen[:, None]

    def later(self, layer: int) -> Bool[Tensor, "batch_or_1 head_or_1 new key"]:
        """What the tokens after the prompt may attend to: the prompt and one another."""
        return self(layer, torch.arange(self.n_pos, self.n_pos + self.n_new), self.n_pos + self.n_new)


def read_by(mask: Bool[Tensor, "batch_or_1 head_or_1 row key"]) -> Bool[Tensor, "batch_or_1 key"]:
    """Which keys any row reads in any head."""
    return mask.view(torch.uint8).amax((1, 2)).bool()  # any, but faster


def is_by_roles(pathway: Any) -> bool:
    """Whether interventions say that they do the same in all prompts whose roles and frames are alike, and in all
    layers in which they act."""
    return all(getattr(one, "by_roles", False) for one in several(pathway))


def layout_of(tokens: TokenMap, *, by_roles: bool = False) -> tuple[Any, ...]:
    """Equal for token maps that answer every selection with the same positions; or (by_roles) those that go by roles
    and frames, for which prompts of a batch that are alike are one."""
    maps = tokens.maps if isinstance(tokens, TokenMaps) else (tokens,)
    if by_roles:
        found = tuple(roles_of(one) for one in maps)
        return found[:1] if len(set(found)) == 1 else found
    arrays = ("role", "frame", "row", "column", "option")
    return tuple((one.grid, one.answer, *(getattr(one, name).numpy().tobytes() for name in arrays)) for one in maps)
