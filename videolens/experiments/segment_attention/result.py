"""The result of measuring attention: how much each segment of a prompt looks at each other one, head by head."""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from dataclasses import dataclass as plain_dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import pandas as pd
import torch
from jaxtyping import Float
from pandas.api.types import is_float_dtype
from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass
from torch import Tensor

from videolens.errors import VideolensError
from videolens.experiments.common.provenance import SETTINGS, Made
from videolens.experiments.common.result import Result


class SegmentRow(NamedTuple):
    """What a head pays from one segment to another: a row of the table.

    Attributes:
        layer, head: 0-based.
        target, source: the segment that looks, and the one that is looked at.
        mass: share of attention.
    """

    layer: int
    head: int
    target: str
    source: str
    mass: float


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class SegmentSettings(Made):
    """How attention between segments was measured.

    Attributes:
        n: prompts that were averaged.
    """

    n: int


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class _Saved(SegmentSettings):
    """What stands in the file of settings: besides them, what makes `mass` of the table."""

    segments: tuple[str, ...]
    shape: tuple[int, int, int, int]


@plain_dataclass(frozen=True, eq=False)
class SegmentAttention(Result):
    """How much attention the tokens of a segment (target) pay to a segment (source), averaged over prompts.

    Attributes:
        mass: share of attention; mean over the target's tokens, sum over the source's. Every row sums to 1.
        segments: names, in the order of the prompt; of targets and of sources.
        settings: how it was measured.

    Raises:
        VideolensError: shapes disagree, or the rows do not sum to 1.
    """

    mass: Float[Tensor, "layer head target source"]
    segments: tuple[str, ...]
    settings: SegmentSettings

    _called: ClassVar[str] = "measurement of attention"
    _files: ClassVar[dict[str, str]] = {"table": "attention.parquet", "settings": "attention.json"}

    def check(self) -> None:
        """Shapes agree, and every row is a share of 1."""
        shape, s = tuple(self.mass.shape), len(self.segments)
        if len(shape) != 4 or shape[2:] != (s, s):
            raise VideolensError(f"attention between {s} segments is [layer head {s} {s}], got {list(shape)}")
        if self.n < 1 or len(set(self.segments)) != s:
            raise VideolensError(f"attention needs n ≥ 1 and distinct segments, got n = {self.n}, {self.segments}")
        off = float((self.mass.sum(-1) - 1).abs().max())
        if not off < 1e-2:
            raise VideolensError(f"attention of a segment sums to 1, but one row is off by {off:.3g}")

    @property
    def model(self) -> str:
        """The model's name."""
        return self.settings.model

    @property
    def n(self) -> int:
        """Prompts that were averaged."""
        return self.settings.n

    @property
    def versions(self) -> dict[str, str]:
        """Of Python and the packages that matter."""
        return self.settings.versions

    @property
    def n_layers(self) -> int:
        """Depth of the model."""
        return self.mass.shape[0]

    @property
    def n_heads(self) -> int:
        """Heads per layer."""
        return self.mass.shape[1]

    @cached_property
    def table(self) -> pd.DataFrame:  # made when it is first looked at: it is large
        """One `SegmentRow` per layer, head, target and source."""
        index = pd.MultiIndex.from_product(
            [range(self.n_layers), range(self.n_heads), self.segments, self.segments], names=SegmentRow._fields[:4]
        )
        return pd.DataFrame({"mass": self.mass.flatten().numpy()}, index=index).reset_index()

    def _contents(self) -> dict[str, Any]:
        saved = asdict(self.settings) | {"segments": self.segments, "shape": list(self.mass.shape)}
        return dict(zip(self._files.values(), (self.table, saved), strict=True))

    @classmethod
    def _from_contents(cls, read: dict[str, Any]) -> SegmentAttention:
        saved = TypeAdapter(_Saved).validate_json(read["settings"], strict=True)
        table, shape = read["table"], saved.shape
        if tuple(table.columns) != SegmentRow._fields or not is_float_dtype(table["mass"]):
            raise VideolensError(f"a table of attention has the columns {list(SegmentRow._fields)}, the last a number")
        if min(shape) < 1 or len(table) != math.prod(shape):
            raise VideolensError(f"attention of shape {list(shape)} has not {len(table)} rows: its files differ")
        mass = torch.tensor(table["mass"].to_numpy()).reshape(shape)
        made = SegmentSettings(**{each.name: getattr(saved, each.name) for each in fields(SegmentSettings)})
        found = cls(mass, saved.segments, made)
        if not (found.table.iloc[:, :4].to_numpy() == table.iloc[:, :4].to_numpy()).all():
            raise VideolensError("attention needs every layer, head, target and source in order: some are missing")
        return found

    @classmethod
    def _settings_class(cls) -> type[Any]:
        return _Saved

    def __repr__(self) -> str:
        return (
            f"SegmentAttention({self.model!r}, n = {self.n}, {self.n_layers} layers, {self.n_heads} heads, "
            f"{len(self.segments)} segments)"
        )
