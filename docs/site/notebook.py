"""A notebook as a page: its text, its code, and the outputs that are committed with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from videolens.reading import read_json


def as_markdown(path: Path) -> tuple[str, dict[str, str]]:
    """The page of a notebook, and its outputs in HTML by the mark that stands for each in the page.

    Markdown would change HTML that it is given: it is put in the place of its mark when the page is made.
    """
    pieces, outputs = [], {}
    for number, cell in enumerate(read_json(path)["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            pieces.append(source)
        elif cell["cell_type"] == "code" and source.strip():
            pieces.append(f"```python\n{source}\n```")
            for each, output in enumerate(cell.get("outputs", ())):
                if shown := _output(output):
                    mark = f"<!-- output {number}.{each} -->"
                    outputs[mark] = f'<div class="notebook-output">{shown}</div>'
                    pieces.append(mark)
    return "\n\n".join(pieces), outputs


def _output(output: dict[str, Any]) -> str:
    """One output in HTML: a picture, what an object shows of itself, or text; nothing of what went to stderr."""
    if output["output_type"] == "stream":
        return "" if output.get("name") == "stderr" else _text(output["text"])
    data = output.get("data", {})
    if "image/png" in data:
        return f'<img alt="figure" src="data:image/png;base64,{"".join(data["image/png"]).strip()}">'
    for kind in ("image/svg+xml", "text/html"):
        if kind in data:
            return "".join(data[kind])
    return _text(data["text/plain"]) if "text/plain" in data else ""


def _text(lines: Any) -> str:
    """Text as it stood in the notebook, without the colours of a terminal."""
    said = re.sub(r"\x1b\[[0-9;]*m", "", "".join(lines)).rstrip()
    escaped = said.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"<pre><code>{escaped}</code></pre>" if said else ""
