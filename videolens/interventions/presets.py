"""The ranges of layers that the paper found effective, per model (Map the Flow, table E(a)), as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Span = tuple[int, int]


@dataclass(frozen=True)
class Preset:
    """One model of the paper. Spans of layers are those of the paper's tables: from 1, both ends included.

    Attributes:
        n_layers: depth.
        cross_frame, video_to_question, question_to_last: where each route is open.
        grid: frames, rows and columns of its video tokens.
        kept_percent: share of the attention edges that the paper says the masks keep (table 3).
    """

    n_layers: int
    cross_frame: Span
    video_to_question: Span
    question_to_last: Span
    grid: tuple[int, int, int]
    kept_percent: float

    def ranges(self) -> dict[str, Any]:
        """Depth and 0-based layers."""
        spans = {name: getattr(self, name) for name in ("cross_frame", "video_to_question", "question_to_last")}
        return {"n_layers": self.n_layers} | {name: range(first - 1, last) for name, (first, last) in spans.items()}


PRESETS: dict[str, Preset] = {
    "LLaVA-NeXT-7B-Video-FT": Preset(32, (6, 15), (6, 20), (16, 25), (8, 12, 12), 42.0),
    # the paper prints 14.3M of 32.2M edges, and 37 %; its masks give 37 %
    "LLaVA-NeXT-13B-Video-FT": Preset(40, (6, 15), (6, 20), (16, 30), (8, 12, 12), 37.0),
    "Mini-InternVL-4B-Video-FT": Preset(32, (6, 15), (6, 20), (11, 30), (8, 16, 16), 40.0),
    "VideoLLaMA3-7B": Preset(28, (1, 15), (6, 20), (21, 28), (8, 12, 12), 58.0),
}
