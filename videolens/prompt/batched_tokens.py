"""The token maps of prompts that differ, in one batch."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from jaxtyping import Int64
from torch import Tensor

from videolens.errors import SelectionError
from videolens.prompt.tokens import TokenMap


class TokenMaps(TokenMap):
    """The token maps of a batch of unequal prompts, all padded to one length.

    The same name means other positions in each of them, so asking the batch for one is a `SelectionError`.

    Attributes:
        maps: one per prompt.
    """

    maps: tuple[TokenMap, ...]

    def __init__(self, maps: tuple[TokenMap, ...]) -> None:
        object.__setattr__(self, "maps", maps)

    def __getattr__(self, name: str) -> Any:
        raise self._refusal(name)

    def __getitem__(self, name: str) -> Int64[Tensor, " n"]:
        raise self._refusal(name)

    def _refusal(self, name: str) -> SelectionError:
        return SelectionError(
            f"{name!r} differs between the {len(self.maps)} prompts of this batch: take them one by one "
            "(`for single in prompt`), or ask `prompt.tokens.maps`"
        )

    @cached_property
    def alike(self) -> bool:
        """Whether roles, frames and what "last" is are the same in all prompts: then selections that go by these are,
        too."""
        return len({roles_of(one) for one in self.maps}) == 1

    @property
    def contents(self) -> str:
        """Nothing: it differs."""
        return ""

    def __repr__(self) -> str:
        """In one line."""
        return f"TokenMaps({len(self.maps)} prompts, padded to {self.n_pos} positions)"

    @property
    def n_pos(self) -> int:
        """Positions in all, padding included."""
        return self.maps[0].n_pos


def roles_of(tokens: TokenMap) -> tuple[bytes, bytes, int]:
    """Equal for token maps that have the same roles and frames everywhere, and the same last position."""
    return tokens.role.numpy().tobytes(), tokens.frame.numpy().tobytes(), int(tokens["last"])
