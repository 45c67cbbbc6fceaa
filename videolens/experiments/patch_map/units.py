"""What a patch map goes over: the sets of positions, or the heads, that are patched one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from videolens.errors import SelectionError, VideolensError, near
from videolens.interventions.sites import Places, Site
from videolens.prompt.tokens import ROLES, TokenMap

Over = str | tuple[tuple[str, str], ...]
OVER = ("frame", "role", "token", "patch", "head")


@dataclass(frozen=True)
class Unit:
    """One column of a patch map.

    Attributes:
        name: what it is, so that it can be asked for again: a `TokenMap` selection, a position, or "head 3".
        label: what to call it in a figure.
        positions: where it is patched.
        heads: in which heads; None: in all.
    """

    name: str
    label: str
    positions: tuple[int, ...]
    heads: tuple[int, ...] | None = None


def check_over(over: str | Sequence[str] | Mapping[str, str], site: Site) -> Over:
    """One of `OVER`, or (label, selection) of several.

    Raises:
        VideolensError: neither, or heads of a site that does not tell them apart.
    """
    if isinstance(over, str):
        if over not in OVER:
            several = "; or a list of selections, ['frame 0', 'stem | last'], or a dictionary of them by label"
            raise VideolensError(near(over, OVER, kind="over") + several)
        if over == "head" and site.heads is None:
            raise VideolensError(f"{site.name!r} does not tell heads apart: over='head' takes 'z', 'q', 'k', 'v', …")
        return over
    named = tuple(over.items()) if isinstance(over, Mapping) else tuple((each, each) for each in over)
    selections = [selection for _, selection in named]
    if (
        not named
        or len(set(selections)) != len(named)
        or not all(isinstance(text, str) for pair in named for text in pair)
    ):
        raise VideolensError(f"over is {over!r}: give at least one selection by name, each once")
    return named


def units_of(over: Over, tokens: TokenMap, site: Site, *, places: Places, heads: Sequence[int]) -> list[Unit]:
    """The units of one prompt, in the order in which they are drawn; those without positions are left out.

    "frame": the video tokens of every frame; "role": every role that occurs, the last token on its own; "token": every
    position; "patch": every video token; "head": every head, at all positions; else the selections that are named.

    Args:
        over: one of `OVER`, or selections.
        tokens: what the positions are.
        site: what is patched.
        places: positions to keep to; None: all that the site holds.
        heads: of "head", which.

    Raises:
        SelectionError: a selection that the prompt does not have; nothing is left.
    """
    within = site.positions(places, tokens)
    if over == "head":
        units = [Unit(f"head {head}", str(head), tuple(within.tolist()), (head,)) for head in heads]
    else:
        units = [Unit(name, label, tuple(at.tolist())) for name, label, at in _named(over, tokens, within)]
    if not isinstance(over, str) and (empty := [unit.name for unit in units if not unit.positions]):
        raise SelectionError(f"{empty[0]!r} has no positions to patch in this prompt: leave it out of over=")
    units = [unit for unit in units if unit.positions]
    if not units:
        raise SelectionError(f"over={over!r} leaves nothing to patch: positions={places!r} holds none of it")
    return units


def _named(over: Over, tokens: TokenMap, within: Int64[Tensor, " n"]) -> list[tuple[str, str, Int64[Tensor, " m"]]]:
    """(name, label, positions) of every unit of positions."""
    frames = [f"frame {i}" for i in range(tokens.grid[0])]
    if over in ("token", "patch"):
        labels = tokens.labels()
        each = [i for i in within.tolist() if over == "token" or tokens.roles[i] == "video"]
        return [(str(i) if over == "token" else labels[i], labels[i], torch.tensor([i])) for i in each]
    if over == "role":
        last = tokens["last"]
        parts = {role: tokens[role] for role in ROLES}
        named = {name: at[~torch.isin(at, last)] for name, at in parts.items()} | {"last": last}
    else:
        chosen = [(frame, frame) for frame in frames] if isinstance(over, str) else over
        return [(name, label, _both(tokens[name], within)) for label, name in chosen]
    roles = [(name, name, _both(at, within)) for name, at in named.items()]
    return sorted(roles, key=lambda unit: int(unit[2][0]) if len(unit[2]) else -1)


def _both(first: Int64[Tensor, " n"], second: Int64[Tensor, " m"]) -> Int64[Tensor, " both"]:
    return first[torch.isin(first, second)]
