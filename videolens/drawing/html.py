"""Small pieces of HTML: everything a page shows is written into it, so that it works with no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape

import matplotlib
from jaxtyping import UInt8
from matplotlib.figure import Figure
from torch import Tensor

__all__ = ["badge", "embed", "escape", "frame_image", "paragraph", "table"]

_LARGEST = 240  # pixels: frames of a real clip are shown as small pictures


def embed(figure: Figure, *, alt: str, caption: str, pixels: bool = False) -> str:
    """A figure with its caption (HTML), as vector graphics, or as `pixels`: smaller, where there is much small writing
    on pictures. Narrow screens scroll it rather than shrink its letters."""
    buffer = io.BytesIO()
    if pixels:
        figure.savefig(buffer, format="png", dpi=160)
    else:
        # a fixed salt and no date: the same figure gives the same bytes
        with matplotlib.rc_context({"svg.hashsalt": "videolens"}):
            figure.savefig(buffer, format="svg", metadata={"Date": None})
    data, kind = base64.b64encode(buffer.getvalue()).decode(), "png" if pixels else "svg+xml"
    width = round(100 * float(figure.get_figwidth()))
    style = f"width:{width}px;min-width:{min(width, 700)}px"
    image = f'<img src="data:image/{kind};base64,{data}" alt="{escape(alt)}" style="{style}">'
    return f'<figure><div class="scroll">{image}</div><figcaption>{caption}</figcaption></figure>'


def frame_image(frame: UInt8[Tensor, "height width channel"], *, alt: str) -> str:
    """One frame: small ones pixel by pixel, large ones as small pictures."""
    from PIL import Image

    picture, buffer = Image.fromarray(frame.numpy()), io.BytesIO()
    small = max(picture.size) <= _LARGEST
    if small:
        picture.save(buffer, "PNG", optimize=True)
    else:
        picture.thumbnail((_LARGEST, _LARGEST))
        picture.save(buffer, "JPEG", quality=85)
    data, kind = base64.b64encode(buffer.getvalue()).decode(), "png" if small else "jpeg"
    return f'<img class="{"pixels" if small else "photo"}" src="data:image/{kind};base64,{data}" alt="{escape(alt)}">'


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers_from: int = 1, note: str = "", kind: str = ""
) -> str:
    """A table of cells that are HTML already; columns from `numbers_from` on are set right. `kind`: a CSS class."""

    def cells(tag: str, row: Sequence[str]) -> str:
        sides = [' class="number"' if i >= numbers_from else "" for i in range(len(row))]
        return "<tr>" + "".join(f"<{tag}{side}>{cell}</{tag}>" for side, cell in zip(sides, row, strict=True)) + "</tr>"

    body = "".join(cells("td", row) for row in rows)
    under = f'<p class="note">{note}</p>' if note else ""
    inside = f"<table><thead>{cells('th', head)}</thead><tbody>{body}</tbody></table>"
    return f'<div class="{f"scroll {kind}".strip()}">{inside}</div>{under}'


def badge(verdict: str) -> str:
    """A verdict as a small label."""
    return f'<span class="badge {escape(verdict.replace(" ", "-"))}">{escape(verdict)}</span>'


def paragraph(text: str) -> str:
    """A paragraph of HTML."""
    return f"<p>{text}</p>"
