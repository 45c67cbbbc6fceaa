"""One self-contained page: sections one after another, with nothing fetched from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from videolens.drawing.html import escape

__all__ = ["Key", "Section", "page"]


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        id: what links point to.
        short: in the navigation.
        title: above the section.
        body: HTML.
    """

    id: str
    short: str
    title: str
    body: str


@dataclass(frozen=True)
class Key:
    """A number at the top of the page, and what it is. `kind` colours it: "tuned", "base" or nothing."""

    number: str
    meaning: str
    kind: str = ""


def page(
    *, title: str, kicker: str, lead: str, keys: Sequence[Key], sections: Sequence[Section], footer: str, head: str = ""
) -> str:
    """The whole page as HTML.

    Args:
        title: of the page, plain text.
        kicker: a line above the title, plain text.
        lead: one paragraph under it, HTML.
        keys: the numbers at the top.
        sections: in order.
        footer: HTML.
        head: what else goes into the head, such as a script that several sections need.
    """
    style = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    links = "".join(f'<li><a href="#{section.id}">{escape(section.short)}</a></li>' for section in sections)
    numbers = "".join(
        f'<div class="{key.kind}"><dd>{escape(key.number)}</dd><dt>{escape(key.meaning)}</dt></div>' for key in keys
    )
    body = "".join(
        f'<section id="{section.id}"><h2>{escape(section.title)}</h2>{section.body}</section>' for section in sections
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style>{head}</head><body>"
        f'<header class="top"><div><p class="kicker">{escape(kicker)}</p><h1>{escape(title)}</h1>'
        f'<p class="lead">{lead}</p><dl class="keys">{numbers}</dl></div></header>'
        f"<nav><ol>{links}</ol></nav><main>{body}</main><footer><div>{footer}</div></footer></body></html>\n"
    )
