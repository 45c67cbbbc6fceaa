"""HTML from templates that escape what they are given; pictures are written into it, so that it needs no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
from jaxtyping import UInt8
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from torch import Tensor

_TEMPLATES = Path(__file__).parent / "templates"
_LARGEST = 240  # pixels: frames of a real clip are shown as small pictures


def render(module: str, template: str = "section.html", /, **values: Any) -> Markup:
    """Fill in the template that lies beside a module.

    Plain text is escaped; only `Markup` is taken as HTML. Every template may import `embed`, `table` and `badge` from
    "macros.html".

    >>> render(__file__, flow=flow)  # doctest: +SKIP

    Args:
        module: the `__file__` of the module that calls.
        template: the name of the template's file.
        values: what the template calls by name.

    Raises:
        jinja2.TemplateNotFound: no such file beside the module.
        jinja2.UndefinedError: the template uses a name that was not given.
    """
    return Markup(_environment(Path(module).parent).get_template(template).render(values))


def embed(figure: Figure, *, alt: str, caption: str, pixels: bool = False) -> Markup:
    """A figure with its caption.

    Args:
        figure: the figure.
        alt: what it shows, for those who cannot see it.
        caption: under it.
        pixels: draw pixels instead of vector graphics: smaller, where there is much small writing on pictures.
    """
    return _macros().embed(figure, alt, caption, pixels)


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers_from: int = 1, note: str = "", kind: str = ""
) -> Markup:
    """A table.

    Args:
        head: names of the columns.
        rows: the cells of every row.
        numbers_from: columns from this one on, counted from 0, are set right.
        note: small print under the table.
        kind: a CSS class.
    """
    return _macros().table(head, rows, numbers_from, note, kind)


def badge(verdict: str) -> Markup:
    """A verdict as a small label."""
    return _macros().badge(verdict)


def paragraph(text: str) -> Markup:
    """A paragraph."""
    return Markup("<p>{}</p>").format(text)


def two_lines(text: str, small: str) -> Markup:
    """A cell of a table: text, and smaller text below it."""
    return Markup("{}<br><small>{}</small>").format(text, small)


def share_cell(value: float, low: float, high: float) -> Markup:
    """A cell of a table: a share in percent, and its interval below it."""
    return two_lines(f"{100 * value:.0f}", f"{100 * low:.0f} – {100 * high:.0f}")


def frame_image(frame: UInt8[Tensor, "height width channel"], *, alt: str) -> Markup:
    """One frame: small ones pixel by pixel, large ones as small pictures."""
    from PIL import Image

    picture, buffer = Image.fromarray(frame.numpy()), io.BytesIO()
    small = max(picture.size) <= _LARGEST
    if small:
        picture.save(buffer, "PNG", optimize=True)
    else:
        picture.thumbnail((_LARGEST, _LARGEST))
        picture.save(buffer, "JPEG", quality=85)
    source = _data(buffer, "png" if small else "jpeg")
    return Markup('<img class="{}" src="{}" alt="{}">').format("pixels" if small else "photo", source, alt)


def _picture(figure: Figure, pixels: bool) -> str:
    """A figure as the source of an image."""
    buffer = io.BytesIO()
    if pixels:
        figure.savefig(buffer, format="png", dpi=160)
        return _data(buffer, "png")
    # a fixed salt and no date: the same figure gives the same bytes
    with matplotlib.rc_context({"svg.hashsalt": "videolens"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _data(buffer, "svg+xml")


def _data(buffer: io.BytesIO, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


@cache
def _environment(folder: Path) -> Environment:
    """Finds templates in a folder, and the shared ones."""
    made = Environment(
        loader=FileSystemLoader([folder, _TEMPLATES]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    made.filters["picture"] = _picture
    made.globals |= {"frame_image": frame_image, "two_lines": two_lines}
    return made


def _macros() -> Any:
    return _environment(_TEMPLATES).get_template("macros.html").module
