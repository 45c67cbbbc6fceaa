"""Following each branch of a pass to its end before the next begins, so that few streams wait.

Layer by layer, as many streams wait as there are branches: 16 windows over 10,000 tokens hold 16 of them. But a branch
needs of the clean run only what it begins from, and in the layers after that the keys and values of the rows before its
own. Where those are few, they are computed first, for all layers, and every branch then runs to its end by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from videolens.engine.passes import Pass

_FEW = 8  # what stands before the rows is an eighth of the prompt at most: its run costs a hundredth of a sweep


class Step(NamedTuple):
    """A layer of one branch.

    Attributes:
        layer: which.
        place: of the branch, in the pass' level of this layer.
        parent: of the branch that it continues, in the level before; None: the clean run.
        n_children: branches that continue it in the next layer.
    """

    layer: int
    place: int
    parent: int | None
    n_children: int


def goes_deep(one: Pass, per_call: int, n_pos: int) -> bool:
    """Whether branches of a pass are followed to their ends: one is in a call anyway, and the rows before are few."""
    return per_call == 1 and one.first_row * _FEW <= n_pos


def descent(one: Pass, begin: int, n_layers: int) -> Iterator[Step]:
    """The branches that begin in a layer, and all that part from them; in layer 0 those of the front end, too."""
    stack = [(begin, i) for i, each in enumerate(one.level(begin)) if each.parent is None or begin == 0][::-1]
    while stack:
        layer, place = stack.pop()
        children = []
        if layer + 1 < n_layers:
            children = [(layer + 1, i) for i, each in enumerate(one.level(layer + 1)) if each.parent == place]
        stack += children[::-1]
        yield Step(layer, place, one.level(layer)[place].parent, len(children))


def most_waiting(one: Pass, n_layers: int) -> int:
    """How many streams wait at once, at most, that of the branch that runs included."""
    most = 1
    for begin in range(n_layers):
        left: dict[tuple[int, int], int] = {}
        for step in descent(one, begin, n_layers):
            most = max(most, len(left) + (step.parent is None))
            if step.parent is not None and (before := (step.layer - 1, step.parent)) in left:
                left[before] -= 1
                if not left[before]:
                    del left[before]
            if step.n_children:
                left[step.layer, step.place] = step.n_children
    return most + len(one.level(-1))
