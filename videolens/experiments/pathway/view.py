"""Attention-edge pruning, drawn by circuitsvis: segments of the prompt × segments, a "head" for every layer, kept and
removed edges side by side."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import torch
from jaxtyping import Float64
from torch import Tensor

from videolens.drawing.view import View, component
from videolens.experiments.pathway.edges import SegmentEdges, segment_edges
from videolens.interventions.protocol import Intervention
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt
from videolens.question import Question

KEPT, REMOVED, NONE = "#0072B2", "#D55E00", "#D4D4D4"

_STYLE = """<style>
.pruned { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); gap: 8px 24px; }
.pruned section { min-width: 0; } .pruned section > h4 { margin: 8px 0 2px; font-size: 15px; }
.pruned section > div > div { max-width: none !important; padding: 0 16px !important; }
.pruned h2, .pruned section > div > div > h3 { display: none; }
.pruned h3 { font-size: 14px; font-weight: 500; color: #666; margin: 4px 0 !important; }
.pruned section > div h4 { padding: 0 3px !important; color: #222 !important; font-size: 10px; font-weight: 500;
  background: rgba(255, 255, 255, .82) !important; }
.pruned [style*="border-width: 1px"] { border-color: #ccc !important; }
.pruned [style*="8.33"], .pruned [style*="16.66"], .pruned [style*="25%"] { flex: 0 0 16.66% !important;
  max-width: 16.66% !important; width: 16.66% !important; }
.edges { border-collapse: collapse; font-size: 13px; margin: 8px 0 16px; font-variant-numeric: tabular-nums; }
.edges td, .edges th { padding: 1px 12px 1px 0; text-align: right; font-weight: normal; } .edges th { color: #666; }
.edges td { white-space: nowrap; vertical-align: middle; }
.edges span { display: flex; width: min(240px, 42vw); } .edges i { height: 9px; }
@media (max-width: 720px) { .pruned section { overflow-x: auto; } .pruned section > div { min-width: 440px; } }
</style>"""


def pruning_view(
    model: HookedVideoTransformer,
    asked: Question | Prompt,
    interventions: Intervention | Sequence[Intervention],
    *,
    title: str | None = None,
) -> View:
    """What a pathway or knockouts keep of the attention between the segments of a prompt, and what they remove.

    >>> pruning_view(model, question, pathway).save_html("pruned.html")  # doctest: +SKIP

    Args:
        model: the model; it is not run.
        asked: a question or a single prompt.
        interventions: a `Pathway`, a `Knockout`, or several at once.
        title: of the page; None: says what was pruned.

    Raises:
        PromptError: a batch of several prompts.
        VideolensError: an intervention for another depth, or one that cuts no edges, such as a patch.
    """
    edges = segment_edges(model, asked, interventions)
    return edges_view(edges, title=title or f"Attention edges kept and removed in {edges.model}")


def edges_view(edges: SegmentEdges, *, title: str = "Attention edges kept and removed") -> View:
    """The same of edges that are counted already."""
    share = edges.share_kept
    kept, total = float(edges.kept.sum()), int(edges.causal.sum()) * edges.n_layers
    body = (
        f"<p>{kept:,.0f} of {total:,} causal (query, key) pairs are kept, {100 * kept / total:.1f} %, over "
        f"{edges.n_layers} layers of {escape(edges.model)}. Rows look (query), columns are looked at (key). Full "
        "colour: all causal pairs between the two segments; white: none; grey (−1): there is no causal pair, for the "
        "source comes later. Hover over a layer to see it large, click to keep it. Layers count from 1, frames from "
        "0. Drawn by circuitsvis.</p>"
    )
    halves = (("Kept", KEPT, share), ("Removed", REMOVED, 1 - share))
    views = "".join(
        f"<section><h4>{name}</h4>{component('AttentionHeads', _heads(edges, each, color), salt=edges.model)}</section>"
        for name, color, each in halves
    )
    return View(title, f'{_STYLE}{body}<div class="pruned">{views}</div>{_per_layer(edges)}')


def _heads(edges: SegmentEdges, values: Float64[Tensor, "layer target source"], color: str) -> dict[str, object]:
    shown = torch.where(edges.causal.expand_as(values) > 0, values, -1.0).tolist()
    return {
        "attention": [[[round(value, 4) for value in row] for row in layer] for layer in shown],
        "attentionHeadNames": [f"L{layer + 1}" for layer in range(edges.n_layers)],
        "tokens": list(edges.segments),
        "minValue": -1,
        "maxValue": 1,
        "positiveColor": color,
        "negativeColor": NONE,
        # segments are sets of positions: "header" has tokens before and after the stem
        "maskUpperTri": False,
    }


def _per_layer(edges: SegmentEdges) -> str:
    """A bar for every layer: kept, and removed."""
    total, rows = int(edges.causal.sum()), ""
    for layer, kept in enumerate(edges.kept.sum((1, 2)).tolist()):
        share = kept / total
        bar = f'<i style="width:{100 * share:.1f}%;background:{KEPT}"></i>'
        bar += f'<i style="width:{100 * (1 - share):.1f}%;background:{REMOVED}"></i>'
        cells = (f"{layer + 1}", f"{kept:,.0f}", f"{100 * share:.1f} %", f"<span>{bar}</span>")
        rows += f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    head = f"<tr><th>layer</th><th>kept of {total:,}</th><th>share</th><th></th></tr>"
    return f'<table class="edges"><thead>{head}</thead><tbody>{rows}</tbody></table>'
