"""What chosen tokens look at, in every layer and head, in as many bytes as a page has room for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from videolens.experiments.attention_map.patterns import HookFunctions, read_rows
from videolens.explorer.packing import pack_rows
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt

_AT_ONCE = 2**29  # bytes of patterns, in float64, that are read in one forward
_READ = 2**28  # bytes of rows that are read in all: those of a long prompt hardly compress by more than a hundred


@dataclass(frozen=True)
class Attending:
    """Rows of attention.

    Attributes:
        rows: position of the token → its patterns [layer head key], `pack_rows`; keys end with the token itself.
        left_out: positions that were asked for and for which there was no room.
    """

    rows: dict[int, str]
    left_out: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        """Length of all rows, as they stand in the page."""
        return sum(map(len, self.rows.values()))


def default_rows(prompt: Prompt) -> list[int]:
    """Every position, those first that people look at first: the last one, what stands after the video, the video."""
    tokens = prompt.tokens
    every, last = set(tokens["all"].tolist()), int(tokens["last"][0])
    after = {*tokens["part Q"].tolist(), *tokens["part A"].tolist()} - {last}
    video = set(tokens["video"].tolist())
    return [last, *sorted(after), *sorted(video - after), *sorted(every - after - video - {last})]


def read_attending(
    model: HookedVideoTransformer,
    prompt: Prompt,
    positions: Sequence[int],
    *,
    fwd_hooks: HookFunctions = (),
    max_bytes: int,
) -> Attending:
    """The patterns of some tokens, in the order given, until the page has no more room.

    Only these rows' patterns are ever materialised.

    Args:
        model: the model.
        prompt: a single prompt.
        positions: of the tokens.
        fwd_hooks: hook functions to run under.
        max_bytes: of all rows together, compressed and in base64.
    """
    cfg = model.cfg
    one = cfg.n_layers * cfg.n_heads * prompt.tokens.n_pos
    positions = list(dict.fromkeys(positions))
    within = positions[: max(1, _READ // one)]
    rows: dict[int, str] = {}
    room = max_bytes
    for part in torch.tensor(within).split(max(1, _AT_ONCE // (8 * one))):
        for at, row in zip(part.tolist(), _patterns(model, prompt, part, fwd_hooks), strict=True):
            text = pack_rows(row[..., : at + 1])
            if len(text) > room:
                return Attending(rows, tuple(each for each in positions if each not in rows))
            rows[at], room = text, room - len(text)
    return Attending(rows, tuple(each for each in positions if each not in rows))


def _patterns(
    model: HookedVideoTransformer, prompt: Prompt, positions: Int64[Tensor, " row"], fwd_hooks: HookFunctions
) -> list[Tensor]:
    """[layer head key] of each."""
    groups = [at[None] for at in positions]
    found = read_rows(model, prompt, groups, layers=range(model.cfg.n_layers), fwd_hooks=fwd_hooks)
    return [found[:, i] for i in range(len(groups))]
