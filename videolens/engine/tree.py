"""Which interventions share one residual stream, layer by layer.

Interventions that have done the same so far share one residual stream: windows that begin together share their blocked
prefix, and all share the clean run until they begin. So the work is a tree, whose branches part where hook functions
differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from videolens.engine.stages import Functions, Staged
from videolens.interventions.protocol import HookFunction

Level = tuple["Branch", ...]


@dataclass(frozen=True, eq=False)
class Branch:
    """One residual stream in one stage.

    Attributes:
        members: numbers of the interventions that it stands for.
        parent: index of the branch that it continues, in the stage before; None: the clean run.
        functions: the hook functions that act on it in this stage.
    """

    members: tuple[int, ...]
    parent: int | None
    functions: Functions

    @cached_property
    def masks(self) -> Functions:
        """Those on the attention mask."""
        return tuple(each for each in self.functions if each[0].endswith("attn.hook_mask"))

    @cached_property
    def others(self) -> Functions:
        """Those on anything else."""
        return tuple(each for each in self.functions if not each[0].endswith("attn.hook_mask"))


def grow(staged: Sequence[Staged], n_layers: int) -> tuple[Level, ...]:
    """Branches of every stage −1 … n_layers; what is still clean has none. Branches with equal masks are neighbours."""
    levels: list[Level] = []
    clean = list(staged)
    cells: list[tuple[int | None, list[Staged]]] = []
    for stage in range(-1, n_layers + 1):
        parted: dict[tuple[int | None, Functions], list[Staged]] = {}
        for parent, members in [*cells, (None, clean)]:
            for member in members:
                functions = member.functions.get(stage, ())
                if parent is not None or functions:
                    parted.setdefault((parent, functions), []).append(member)
        clean = [member for member in clean if stage not in member.functions]
        alike: dict[tuple[HookFunction, ...], list[tuple[Branch, list[Staged]]]] = {}
        for (parent, functions), members in parted.items():
            branch = Branch(tuple(member.number for member in members), parent, functions)
            alike.setdefault(tuple(function for _, function in branch.masks), []).append((branch, members))
        ordered = [each for same in alike.values() for each in same]
        cells = [(index, members) for index, (_, members) in enumerate(ordered)]
        levels.append(tuple(branch for branch, _ in ordered))
    return tuple(levels)
