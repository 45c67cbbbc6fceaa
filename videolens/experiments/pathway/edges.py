"""Which attention edges an intervention leaves, between the segments of a prompt, layer by layer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from videolens.errors import VideolensError
from videolens.interventions.protocol import Intervention
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt
from videolens.question import Question

_ROWS_AT_A_TIME = 1024
_MASK = re.compile(r"blocks\.(\d+)\.attn\.hook_mask")

Cut = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class SegmentEdges:
    """Causal (query, key) pairs between segments of one prompt: how many there are, and how many are left.

    Attributes:
        causal: pairs with the query in the target segment and the key in the source segment, in any one layer.
        kept: those of them that stay open, in each layer; a fraction where heads differ (mean over heads).
        segments: names, in the order of the prompt.
        model: the model's name.

    Raises:
        VideolensError: shapes disagree, or more is kept than there is.
    """

    causal: Int64[Tensor, "target source"]
    kept: Float64[Tensor, "layer target source"]
    segments: tuple[str, ...]
    model: str

    def __post_init__(self) -> None:
        n = len(self.segments)
        if self.causal.shape != (n, n) or self.kept.shape[1:] != (n, n):
            raise VideolensError(
                f"edges between {n} segments are [{n} {n}] and [layer {n} {n}], got {list(self.causal.shape)} and "
                f"{list(self.kept.shape)}"
            )
        if bool((self.kept < 0).any() or (self.kept > self.causal).any()):
            raise VideolensError("more edges are kept than there are causal ones, or fewer than none")

    @property
    def n_layers(self) -> int:
        """Depth of the model."""
        return len(self.kept)

    @property
    def share_kept(self) -> Float64[Tensor, "layer target source"]:
        """Share of the causal pairs that stay open; NaN where there is no causal pair."""
        return self.kept / self.causal

    def to_dataframe(self) -> pd.DataFrame:
        """One row per layer (0-based), target and source that have causal pairs: `edges`, `kept`, `share_kept`."""
        index = pd.MultiIndex.from_product(
            [range(self.n_layers), self.segments, self.segments], names=["layer", "target", "source"]
        )
        edges = self.causal.expand_as(self.kept).flatten().numpy()
        table = pd.DataFrame({"edges": edges, "kept": self.kept.flatten().numpy()}, index=index).reset_index()
        table["share_kept"] = table["kept"] / table["edges"]
        return table[table["edges"] > 0].reset_index(drop=True)


def segment_edges(
    model: HookedVideoTransformer, asked: Question | Prompt, interventions: Intervention | Sequence[Intervention]
) -> SegmentEdges:
    """Count the attention edges that interventions leave, between segments (`TokenMap.segments`).

    1. Per layer, the hook functions that act on its mask. Layers with equal functions lose the same edges.
    2. Apply them to the causal mask, some rows at a time, and count what is left between each two segments.

    Args:
        model: the model; it is not run.
        asked: a question or a single prompt.
        interventions: knockouts, a pathway, or several at once.

    Raises:
        PromptError: a batch of several prompts.
        VideolensError: an intervention for another depth, or one that cuts no edges, such as a patch.
    """
    prompt = model.prompt(asked) if isinstance(asked, Question) else asked.single("counting edges")
    several = list(interventions) if isinstance(interventions, Iterable) else [interventions]
    # 1.
    cuts: list[list[Cut]] = [[] for _ in range(model.cfg.n_layers)]
    for each in several:
        each.check(n_layers=model.cfg.n_layers, n_heads=model.cfg.n_heads)
        for name, function in each.hooks(prompt):
            match = _MASK.fullmatch(name)
            if match is None:
                raise VideolensError(f"{each!r} acts on {name}, which cuts no attention edges: leave it out")
            cuts[int(match[1])].append(function)
    # 2.
    segments = prompt.tokens.segments()
    member = torch.zeros(len(segments), prompt.tokens.n_pos, dtype=torch.float64)
    for i, (_, positions) in enumerate(segments):
        member[i, positions] = 1
    known: list[tuple[list[Cut], Tensor]] = [([], _count([], member, model.cfg.n_heads))]
    for functions in cuts:
        if not any(functions == before for before, _ in known):
            known.append((functions, _count(functions, member, model.cfg.n_heads)))
    kept = [next(counted for before, counted in known if before == functions) for functions in cuts]
    return SegmentEdges(
        causal=known[0][1].round().long(),
        kept=torch.stack(kept),
        segments=tuple(name for name, _ in segments),
        model=str(model.cfg.model_name or "model"),
    )


def _count(
    functions: Sequence[Cut], member: Float64[Tensor, "segment pos"], n_heads: int
) -> Float64[Tensor, "segment segment"]:
    """Open pairs between segments, mean over heads."""
    n_pos = member.shape[1]
    keys, total = torch.arange(n_pos), torch.zeros(len(member), len(member), dtype=torch.float64)
    for rows in keys.split(_ROWS_AT_A_TIME):
        causal: Bool[Tensor, "1 1 row key"] = (rows[:, None] >= keys)[None, None]
        mask = causal.clone()
        for function in functions:
            hook = SimpleNamespace(name="hook_mask", ctx={"rows": rows, "keys": keys, "n_heads": n_heads})
            mask = function(mask, hook)
        open_ = (mask & causal)[0].to(torch.float32).mean(0)
        total += member[:, rows] @ (open_ @ member.T.float()).double()
    return total
