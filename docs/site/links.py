"""Links between files of the repository, and what they are called in the site.

In the repository a page links to any file, as it lies: `../README.md`, `templates/family.py`. In the site some files
are pages of another name (README.md is the front page), and files outside docs/ are put beside the pages.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    "README.md": "index.md",
    "docs/README.md": "contents.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
}
"""Pages of the site that are no file of docs/ of the same name: file of the repository → page."""

FOLDERS = {"notebooks": "tutorials.md", "docs": "contents.md"}
"""Folders that pages link to: the page of the site that lists what is in each."""

_CODE = re.compile(r"^(```|~~~).*?^\1[^\n]*$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\]]*\])*\]\()([^)\s]+)((?:\s+\"[^\"]*\")?\))")


def page_of(file: str) -> str:
    """What a file of the repository is called in the site; files outside docs/ keep their path."""
    if file in PAGES or file in FOLDERS:
        return (PAGES | FOLDERS)[file]
    if file.endswith(".ipynb"):
        return str(Path(file).with_suffix(".md"))
    return file.removeprefix("docs/")


def file_of(page: str) -> str:
    """The file of the repository that a page of the site is made from."""
    for file, called in PAGES.items():
        if page == called:
            return file
    if page.startswith("notebooks/"):
        return str(Path(page).with_suffix(".ipynb"))
    return f"docs/{page}"


def outside_code(text: str) -> Iterator[tuple[str, bool]]:
    """The pieces of a Markdown text, and whether each is code."""
    at = 0
    for code in _CODE.finditer(text):
        yield text[at : code.start()], False
        yield code[0], True
        at = code.end()
    yield text[at:], False


def local_links(text: str) -> list[str]:
    """Where the links and pictures of a Markdown text lead, if it is not to the network or within the page."""
    found = [link[2] for piece, code in outside_code(text) if not code for link in _LINK.finditer(piece)]
    return [link for link in found if not re.match(r"[a-z]+:|#|//", link)]


def rewritten(text: str, file: str, missing: Callable[[str], None]) -> str:
    """A page's text with its links led to where their targets are in the site.

    Args:
        text: Markdown.
        file: the file of the repository that it is from.
        missing: told of every link to no file.
    """

    def led(link: re.Match[str]) -> str:
        if re.match(r"[a-z]+:|#|//", link[2]):
            return link[0]
        path, hash_, anchor = link[2].partition("#")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(file), path))
        if not (ROOT / target).is_file() and target not in FOLDERS:
            missing(link[2])
            return link[0]
        there = posixpath.relpath(page_of(target), posixpath.dirname(page_of(file)) or ".")
        return f"{link[1]}{there}{hash_}{anchor}{link[3]}"

    return "".join(piece if code else _LINK.sub(led, piece) for piece, code in outside_code(text))


def targets(file: str) -> list[str]:
    """The files of the repository, outside docs/, that a page links to."""
    base = posixpath.dirname(file)
    paths = [link.partition("#")[0] for link in local_links((ROOT / file).read_text(encoding="utf-8"))]
    found = [posixpath.normpath(posixpath.join(base, path)) for path in paths]
    return sorted({each for each in found if not each.startswith("docs/") and (ROOT / each).is_file()})
