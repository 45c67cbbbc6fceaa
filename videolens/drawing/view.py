"""Views: pieces of HTML that circuitsvis's own JavaScript fills, and pages that need no network.

The script comes with the installed package. A page holds it once, however many views it shows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from markupsafe import Markup

from videolens.drawing.html import render
from videolens.errors import VideolensError

MOST_BYTES = 5 * 2**20
"""A page may be as large as this, the script of 1.3 MB included."""


@dataclass(frozen=True)
class View:
    """A piece of a page, drawn by circuitsvis.

    In a notebook it shows itself. On a page of one's own: `script()` once, then every view's `body`.

    Attributes:
        title: what a page with this view alone is called.
        body: HTML, without the script.
    """

    title: str
    body: str

    def page(self) -> str:
        """A whole page with this view alone. It fetches nothing."""
        values = {"title": self.title, "script": Markup(script()), "body": Markup(self.body)}
        return str(render(__file__, "view.html", **values))

    def save_html(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the page into a file.

        Raises:
            VideolensError: the file is there already, and `overwrite` is False; or the page is larger than 5 MB.
        """
        return write_page(path, self.page(), MOST_BYTES, overwrite=overwrite)

    def __repr__(self) -> str:
        return f"View({self.title!r}, {len(self.body) / 2**10:.0f} kB; .save_html(path) writes a page)"

    def _repr_html_(self) -> str:
        return script() + self.body


def write_page(path: str | Path, page: str, most: int, *, overwrite: bool) -> Path:
    """Write a page into a file.

    Args:
        path: of the file.
        page: HTML.
        most: bytes that it may have.
        overwrite: whether a file that is there already is replaced.

    Raises:
        VideolensError: the file is there already, and `overwrite` is False; or the page is larger.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise VideolensError(f"{path} is there already: choose another name, or pass overwrite=True")
    if (size := len(page.encode())) > most:
        raise VideolensError(
            f"the page would be {size / 2**20:.1f} MB: show fewer layers, heads, words or frames "
            f"({most / 2**20:.0f} MB at most)"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def script() -> str:
    """The `<script>` element that defines `CircuitsVis`: about 1.3 MB, once per page."""
    import circuitsvis

    bundle = (Path(circuitsvis.__file__).parent / "dist" / "cdn" / "iife.js").read_text(encoding="utf-8")
    # a closing tag inside a string of the script would end the script for the HTML parser
    return "<script>" + bundle.replace("</script", "<\\/script") + "</script>"


def component(kind: str, properties: Mapping[str, Any], *, salt: str = "", open_when: str | None = None) -> str:
    """An element, and the call that fills it with a component of circuitsvis.

    Args:
        kind: such as "AttentionHeads".
        properties: the component's.
        salt: what tells this element from another one of the same page with the same properties.
        open_when: id of a `<details>` element; the component is drawn when that is opened first. None: at once.
    """
    # no closing tag may stand inside a script
    written = json.dumps(properties, separators=(",", ":")).replace("</", "<\\/")
    name = f"circuits-vis-{uuid5(NAMESPACE_OID, kind + salt + written).hex[:12]}"
    draw = f'CircuitsVis.render("{name}", CircuitsVis.{kind}, {written})'
    if open_when is not None:
        draw = f'document.getElementById("{open_when}").addEventListener("toggle", () => {draw}, {{once: true}})'
    return f'<div id="{name}"></div><script>{draw}</script>'
