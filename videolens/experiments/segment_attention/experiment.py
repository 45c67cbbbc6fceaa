"""Who attends to whom: attention mass between the segments of a prompt, per layer and head."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from videolens.errors import VideolensError
from videolens.experiments.common.provenance import versions
from videolens.experiments.common.storing import read_result, write_result
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt
from videolens.question import Question

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["SegmentAttention", "measure_attention"]

COLUMNS = ("layer", "head", "target", "source", "mass")
TABLE, SETTINGS = "attention.parquet", "attention.json"


@dataclass(frozen=True, eq=False)
class SegmentAttention:
    """How much attention the tokens of a segment (target) pay to a segment (source), averaged over prompts.

    Attributes:
        mass: share of attention; mean over the target's tokens, sum over the source's. Every row sums to 1.
        segments: names, in the order of the prompt; of targets and of sources.
        model: the model's name.
        n: prompts that were averaged.
        versions: of Python and the packages that matter.

    Raises:
        VideolensError: shapes disagree, or the rows do not sum to 1.
    """

    mass: Float[Tensor, "layer head target source"]
    segments: tuple[str, ...]
    model: str
    n: int
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape, s = tuple(self.mass.shape), len(self.segments)
        if len(shape) != 4 or shape[2:] != (s, s):
            raise VideolensError(f"attention between {s} segments is [layer head {s} {s}], got {list(shape)}")
        if self.n < 1 or len(set(self.segments)) != s:
            raise VideolensError(f"attention needs n ≥ 1 and distinct segments, got n = {self.n}, {self.segments}")
        off = float((self.mass.sum(-1) - 1).abs().max())
        if not off < 1e-2:
            raise VideolensError(f"attention of a segment sums to 1, but one row is off by {off:.3g}")

    @property
    def n_layers(self) -> int:
        """Depth of the model."""
        return self.mass.shape[0]

    @property
    def n_heads(self) -> int:
        """Heads per layer."""
        return self.mass.shape[1]

    def to_dataframe(self) -> pd.DataFrame:
        """One row per layer, head (both 0-based), target and source segment: the share of attention."""
        index = pd.MultiIndex.from_product(
            [range(self.n_layers), range(self.n_heads), self.segments, self.segments], names=COLUMNS[:4]
        )
        return pd.DataFrame({"mass": self.mass.flatten().numpy()}, index=index).reset_index()

    def figure(self) -> Figure:
        """What frames, stem, options and last token look at, layer by layer, mean over heads."""
        from videolens.experiments.segment_attention.figure import draw

        return draw(self)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write `attention.parquet` and `attention.json` into a directory.

        Raises:
            VideolensError: it is there already, and `overwrite` is False.
        """
        settings = {key: value for key, value in asdict(self).items() if key != "mass"}
        files = {TABLE: self.to_dataframe(), SETTINGS: settings | {"shape": list(self.mass.shape)}}
        return write_result(path, files, what="attention", overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path) -> SegmentAttention:
        """Read what `save` wrote.

        Raises:
            VideolensError: the directory holds no attention, or such as contradicts itself.
        """
        table, settings = read_result(path, TABLE, SETTINGS, what="attention")
        mass = torch.tensor(table["mass"].to_numpy()).reshape(settings.pop("shape"))
        return cls(mass=mass, **(settings | {"segments": tuple(settings["segments"])}))


@torch.no_grad()
def measure_attention(
    model: HookedVideoTransformer,
    questions: Iterable[Question | Prompt],
    *,
    name: str | None = None,
    fwd_hooks: Sequence[tuple[str, Callable[..., Any]]] = (),
    progress: bool = True,
) -> SegmentAttention:
    """Attention between segments, averaged over prompts with equal weight.

    1. Per prompt, layer and head: for every pair of segments, sum the attention over the source's tokens, then average
       over the target's. Only these sums are kept, so a long prompt costs one layer's pattern at a time.
    2. Average over prompts.

    Args:
        model: the model.
        questions: questions, or prompts; all with the same segments (`TokenMap.segments`).
        name: what to call the model; None: what it was loaded as.
        fwd_hooks: hook functions to run under, such as a knockout's.
        progress: show a bar if it takes longer than two seconds.

    Raises:
        VideolensError: no questions, or prompts whose segments differ.
    """
    total: Tensor | None = None
    names: tuple[str, ...] = ()
    n = 0
    for item in tqdm(list(questions), desc="reading attention", delay=2, disable=not progress, leave=False):
        for prompt in model.prompt(item) if isinstance(item, Question) else item:
            segments = prompt.tokens.segments()
            here = tuple(segment for segment, _ in segments)
            if n and here != names:
                raise VideolensError(
                    f"prompts with the segments {here} and {names} cannot be averaged: go through them apart"
                )
            names, n = here, n + 1
            mass = _of_prompt(model, prompt, [positions for _, positions in segments], fwd_hooks)
            total = mass if total is None else total + mass
    if total is None:
        raise VideolensError("there are no questions to read attention from: give at least one")
    called = name if name is not None else str(model.cfg.model_name or "model")
    return SegmentAttention(mass=(total / n).cpu(), segments=names, model=called, n=n, versions=versions())


def _of_prompt(
    model: HookedVideoTransformer,
    prompt: Prompt,
    segments: Sequence[Tensor],
    fwd_hooks: Sequence[tuple[str, Callable[..., Any]]],
) -> Float[Tensor, "layer head target source"]:
    """Step 1."""
    member = torch.zeros(len(segments), prompt.shape[1], dtype=torch.float64, device=prompt.device)
    for i, positions in enumerate(segments):
        member[i, positions] = 1
    each = member / member.sum(-1, keepdim=True)
    kept: dict[int, Tensor] = {}

    def reduce(layer: int) -> Callable[..., None]:
        def keep(pattern: Float[Tensor, "1 head query key"], hook: Any) -> None:
            kept[layer] = torch.einsum("tq,hqk,sk->hts", each, pattern[0].double(), member)

        return keep

    reading = [(f"blocks.{layer}.attn.hook_pattern", reduce(layer)) for layer in range(model.cfg.n_layers)]
    model.run_with_hooks(prompt, fwd_hooks=[*fwd_hooks, *reading])
    return torch.stack([kept[layer] for layer in range(model.cfg.n_layers)])
