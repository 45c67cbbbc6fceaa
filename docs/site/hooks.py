"""What `make docs` adds to MkDocs: pages of files outside docs/, notebooks as pages, and the reference.

The pages of docs/ are read in the repository and in the site; links are written as they work in the repository.
"""

from __future__ import annotations

import logging
from typing import Any

from links import PAGES, ROOT, file_of, page_of, rewritten, targets
from mkdocs.structure.files import File, Files
from notebook import as_markdown
from reference import pages, subjects, without_docstring

_LOG = logging.getLogger("mkdocs.plugins.videolens")
_OUTPUTS: dict[str, dict[str, str]] = {}


def on_config(config: Any) -> Any:
    """Put the notebooks and the pages of the reference into the navigation."""
    for name in without_docstring():
        _LOG.warning("%s has no docstring: say what it is", name)
    sections = {title: listed for section in config.nav for title, listed in section.items()}
    sections["Tutorials"] += [page_of(file) for file in _notebooks()]
    shown = [{title: f"reference/{page}.md"} for page, (title, _, _) in subjects().items()]
    sections["Reference"].append({"API": shown})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add what is no file of docs/: pages, and every file that a page links to."""
    made = {file: (ROOT / file).read_text(encoding="utf-8") for file in PAGES}
    for file in _notebooks():
        made[file], _OUTPUTS[page_of(file)] = as_markdown(ROOT / file)
    for old in [each for each in files if f"docs/{each.src_uri}" in PAGES]:
        files.remove(old)
    for file, text in made.items():
        files.append(File.generated(config, page_of(file), content=text))
    for page, text in pages().items():
        files.append(File.generated(config, page, content=text))
    readable = [file_of(page.src_uri) for page in files.documentation_pages() if not _is_made(page.src_uri)]
    linked = {each for file in readable if file.endswith(".md") for each in targets(file)}
    for file in sorted(linked - made.keys()):
        files.append(File.generated(config, file, abs_src_path=str(ROOT / file)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Lead a page's links to where their targets are in the site."""
    if _is_made(page.file.src_uri):
        return markdown
    file = file_of(page.file.src_uri)
    return rewritten(markdown, file, lambda link: _LOG.warning("%s links to %s, which is no file", file, link))


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Put a notebook's outputs where their marks are."""
    for mark, output in _OUTPUTS.get(page.file.src_uri, {}).items():
        html = html.replace(mark, output)
    return html


def _notebooks() -> list[str]:
    return [f"notebooks/{path.name}" for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]


def _is_made(page: str) -> bool:
    return page.startswith("reference/")
