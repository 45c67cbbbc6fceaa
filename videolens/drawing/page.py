"""One self-contained page: sections one after another, with nothing fetched from anywhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from videolens.drawing.html import render
from videolens.drawing.view import script


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        id: what links point to.
        short: its name in the navigation.
        title: above the section.
        body: below the title; `Markup` is HTML, plain text is shown as it is.
        folded: whether only the title shows at first.
    """

    id: str
    short: str
    title: str
    body: str
    folded: bool = False


@dataclass(frozen=True)
class Key:
    """A number at the top of the page, and what it is. `kind` colours it: "tuned", "base" or nothing."""

    number: str
    meaning: str
    kind: str = ""


def page(
    *,
    title: str,
    kicker: str,
    lead: str,
    keys: Sequence[Key],
    sections: Sequence[Section],
    footer: str,
    picture: str = "",
    head: str | None = None,
) -> str:
    """The whole page. Whatever text it is given is escaped, unless it is `Markup`.

    Args:
        title: of the page.
        kicker: a line above the title.
        lead: one paragraph below the title.
        keys: the numbers at the top.
        sections: in order.
        footer: at the end.
        picture: below the paragraph: what a stranger sees first.
        head: what else goes into the head, as `Markup`. None: circuitsvis's script, if a section needs it.
    """
    if head is None:
        head = Markup(script() if any("CircuitsVis.render(" in section.body for section in sections) else "")
    values = {"title": title, "kicker": kicker, "lead": lead, "keys": keys, "sections": sections}
    values |= {"footer": footer, "picture": picture}
    head_part, body = re.split(r"(?=</head>)", str(render(__file__, "page.html", head=head, **values)), maxsplit=1)
    # a number and its sign stay in one line
    return head_part + re.sub(r"(?<=[\d\]]) %", "\N{NO-BREAK SPACE}%", body)
