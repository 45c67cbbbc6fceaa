"""Steering: a direction is added to the residual stream of some positions, in some layers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from videolens.errors import SelectionError, VideolensError, near
from videolens.interventions.attention_mask import AsAttentionMask
from videolens.interventions.blocked import Chosen
from videolens.interventions.layer_sets import layer_words
from videolens.interventions.numbering import check_within, some_numbers
from videolens.interventions.protocol import HookFunction
from videolens.interventions.sites import as_places
from videolens.prompt.batched_tokens import TokenMaps
from videolens.prompt.prompt import Prompt
from videolens.prompt.tokens import TokenMap

STREAMS = ("resid_pre", "resid_mid", "resid_post")
"""The residual stream of a layer: as it enters, between attention and MLP, and as it leaves."""


@dataclass(frozen=True, eq=False)
class _Direction:
    """A vector as data: equal where its numbers are."""

    vector: Float[Tensor, " d_model"]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Direction) and torch.equal(self.vector, other.vector)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(self.vector.tolist()))

    def __repr__(self) -> str:
        return f"direction({len(self.vector)} wide, norm {float(self.vector.float().norm()):.3g})"


@dataclass(frozen=True)
class Add(AsAttentionMask):
    """`factor` × a direction is added to the residual stream of these positions, in each of these layers.

    By default to what *enters* a layer (`resid_pre`, as in TransformerLens); `site="resid_post"` adds to what leaves
    it. "last" is the newest token at every step, "response" are the generated ones, as for a `Knockout`: steering
    `at="last"` goes on while the model writes.

    Attributes:
        direction: a copy of the vector that was given [d_model]; not all zeros.
        at: a selection ("stem", "frame 2", "last", …), or positions of the prompt, counted from 0.
        layers: 0-based layers, at least one; kept sorted.
        site: one of `STREAMS`.
        factor: how much of it; 0 changes nothing, below 0 it is taken away.

    Raises:
        VideolensError: a direction that is no vector of finite numbers, or zeros; a factor that is not finite; another
            site; no layer, or one that is negative or no whole number.
        SelectionError: positions that are no whole numbers, negative, or none.
    """

    direction: _Direction
    at: str | tuple[int, ...]
    layers: tuple[int, ...]
    site: str = "resid_pre"
    factor: float = 1.0

    def __init__(
        self,
        direction: Float[Tensor, " d_model"],
        at: str | Sequence[int] | Int[Tensor, " n"] | int,
        layers: Iterable[int] | int,
        *,
        site: str = "resid_pre",
        factor: float | int = 1.0,
    ) -> None:
        if site not in STREAMS:
            raise VideolensError(near(site, STREAMS, kind="residual stream to add to"))
        if isinstance(factor, bool) or not isinstance(factor, Real) or not math.isfinite(factor):
            raise VideolensError(f"the factor of a direction is {factor!r}: give a finite number, such as 4.0")
        if at is None:
            raise SelectionError("at is None: say where a direction is added, such as at='last', or at='all'")
        vars(self).update(
            direction=_direction(direction),
            at=as_places(at),
            layers=some_numbers("layer", layers),
            site=site,
            factor=float(factor),
        )

    @property
    def name(self) -> str:
        """What it does, in words, layers counted from 1."""
        where = self.at if isinstance(self.at, str) else f"{len(self.at)} positions"
        return f"{self.factor:g} × a direction to {self.site} of {where}, {layer_words(self.layers)}"

    def hooks(self, prompt: Prompt) -> list[tuple[str, HookFunction]]:
        """Hook functions for `run_with_hooks(prompt, fwd_hooks=…)`: one per layer; none with a factor 0.

        Raises:
            SelectionError: a selection that this prompt does not have, or with no position in it; positions outside it,
                or in a batch of unequal prompts.
            VideolensError: the direction is not as wide as the prompt's residual stream.
        """
        width, d_model = len(self.direction.vector), prompt.residual.shape[-1]
        if width != d_model:
            raise VideolensError(
                f"the direction is {width} wide, the residual stream {d_model}: take one from this model's stream"
            )
        places = _places(self.at, prompt)
        if not any(place.positions or place.generated for place in places):
            raise SelectionError(f"{self.at!r} are no positions of this prompt, so nothing would be added: name others")
        if self.factor == 0:
            return []
        added = _Added(self.direction, self.factor, places)
        return [(f"blocks.{layer}.hook_{self.site}", added) for layer in self.layers]

    def cone(self, prompt: Prompt) -> tuple[int, int] | None:
        """(first layer, first position) that it can change; None if it changes nothing of the prompt."""
        rows = [place.positions[0] for place in _places(self.at, prompt) if place.positions]
        return (self.layers[0], min(rows)) if rows and self.factor else None

    def check(self, *, n_layers: int, n_heads: int) -> None:
        """Raise a `VideolensError` if it names a layer that a model of this size does not have."""
        check_within("layer", self.layers, n_layers)


@dataclass(frozen=True)
class _Place:
    """Where a direction is added in one prompt: at some of its positions, and to what is generated after it, or not."""

    positions: tuple[int, ...]
    n_pos: int
    generated: bool

    def among(self, rows: Int[Tensor, " row"]) -> Bool[Tensor, " row"]:
        """Which of the rows these are."""
        hit = torch.isin(rows, torch.tensor(self.positions, dtype=rows.dtype, device=rows.device))
        return hit | (rows >= self.n_pos) if self.generated else hit


def _places(at: str | tuple[int, ...], prompt: Prompt) -> tuple[_Place, ...]:
    """The place in every prompt of a batch of unequal ones; one for all others."""
    maps = prompt.tokens.maps if isinstance(prompt.tokens, TokenMaps) else (prompt.tokens,)
    if isinstance(at, str):
        return tuple(_selected(at, one) for one in maps)
    if isinstance(prompt.tokens, TokenMaps):
        raise SelectionError(
            f"positions {at} are other tokens in each prompt of a batch of unequal ones: name a selection, such as "
            "'stem', or take the prompts one by one"
        )
    n_pos = prompt.tokens.n_pos
    if at[-1] >= n_pos:
        raise SelectionError(f"position {at[-1]} is outside the prompt: its positions are 0 … {n_pos - 1}")
    return (_Place(at, n_pos, generated=False),)


def _selected(name: str, tokens: TokenMap) -> _Place:
    chosen = Chosen(name, tokens)
    positions = chosen.of(torch.arange(tokens.n_pos)).nonzero().flatten().tolist()
    return _Place(tuple(positions), tokens.n_pos, chosen.generated)


@dataclass(frozen=True)
class _Added:
    """The hook function. Two that do the same compare equal."""

    direction: _Direction
    factor: float
    places: tuple[_Place, ...]

    def __call__(self, value: Float[Tensor, "batch row d_model"], hook: Any) -> Float[Tensor, "batch row d_model"]:
        hit = torch.stack([place.among(hook.ctx["rows"]) for place in self.places])
        added = (self.factor * self.direction.vector).to(value.device, value.dtype)
        return torch.where(hit[..., None], value + added, value)


def _direction(given: Any) -> _Direction:
    try:
        vector = torch.as_tensor(given).detach().clone()
    except (TypeError, ValueError, RuntimeError) as error:
        raise VideolensError(f"the direction is {given!r:.80}: give a vector of numbers [d_model]") from error
    if vector.ndim != 1 or not vector.is_floating_point():
        raise VideolensError(
            f"the direction is {vector.dtype} {list(vector.shape)}: give a vector of floating-point numbers [d_model]"
        )
    if not bool(vector.isfinite().all() & vector.any()):
        what = "all zeros" if not vector.any() else "not finite everywhere"
        raise VideolensError(f"the direction is {what}: give a vector of finite numbers that are not all zeros")
    return _Direction(vector)
