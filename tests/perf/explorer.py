"""How long the explorer takes to answer, with 10,000 tokens: `python tests/perf/explorer.py [--rounds 20]`.

The page of a prompt of 64 frames of 12 × 13 tokens under a model of 28 layers and 28 heads; its numbers are drawn by
chance, since only their amount matters here. Milliseconds from the event to the finished drawing, in Chromium, of:
pointing at a cell, moving by a key, choosing a token (its attention is unpacked), another layer, another frame.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[i]) for i in (0, 1, 2)]

from helpers.browser import browser
from perf_timing import machine, median, table
from PIL import Image

from videolens.experiments.common.thumbnails import LONGEST
from videolens.explorer.attending import Attending
from videolens.explorer.cells import Cells
from videolens.explorer.explore import MOST_BYTES, ROOM
from videolens.explorer.packing import pack_rows
from videolens.explorer.page import page, plain
from videolens.explorer.pane import Answer, Pane
from videolens.explorer.reading import Words
from videolens.interventions.knockout import ROUTES
from videolens.prompt.prompt import Prompt
from videolens.prompt.tokens import TokenMap

LAYERS, HEADS, GRID, ROWS = 28, 28, (64, 12, 13), 12


def pane() -> Pane:
    """A prompt as large as real ones, with numbers by chance."""
    rng = torch.Generator().manual_seed(0)
    frames, rows, columns = GRID
    n_video = frames * rows * columns
    spans = {
        "stem": range(16 + n_video, 50 + n_video),
        "option A": range(50 + n_video, 56 + n_video),
        "option B": range(56 + n_video, 60 + n_video),
    }
    n = 70 + n_video
    seconds = torch.arange(frames).double()
    tokens = TokenMap.from_spans(n, spans, grid=GRID, video=range(16, 16 + n_video), seconds=seconds)
    empty = torch.zeros(1, n, 2)
    prompt = Prompt(torch.zeros(1, n, dtype=torch.int64), tokens, empty, (empty, empty))
    every = torch.ones(len(ROUTES), LAYERS)
    cells = Cells(
        ROUTES,
        {layer: tuple(range(max(0, layer - 4), min(LAYERS, layer + 5))) for layer in range(LAYERS)},
        torch.tensor([0.9, 0.1]),
        torch.rand(len(ROUTES), LAYERS, 2, generator=rng),
        every * -torch.rand(every.shape, generator=rng) * 50,
        tuple([[16, 15 + n_video]] for _ in ROUTES),
        tuple([[16, 15 + n_video]] for _ in ROUTES),
        {},
    )
    kept: dict[int, str] = {}
    for at in range(n - 1, n - 1 - ROWS, -1):
        # as skewed as attention is: most weights are next to nothing
        scores = 3 * torch.randn(LAYERS, HEADS, at + 1, generator=rng)
        row = pack_rows(scores.softmax(-1).double())
        if sum(map(len, kept.values())) + len(row) > ROOM:
            break
        kept[at] = row
    words = Words(
        tuple(f"word{i}" for i in range(2000)),
        torch.randint(0, 2000, (LAYERS, n, 1), generator=rng),
        torch.randint(0, 255, (LAYERS, n, 1), generator=rng).to(torch.uint8),
    )
    texts = {at: f" t{at}" for at in range(n) if not 16 <= at < 16 + n_video}
    answers = (Answer("A left", 0, True), Answer("B right", 1, False))
    return Pane("large", prompt, texts, pictures(frames), answers, 0, cells, Attending(kept, ()), words, LAYERS, HEADS)


def pictures(n: int) -> tuple[bytes, ...]:
    """Frames with something in them."""
    import io

    found = []
    for i in range(n):
        x = np.linspace(0, 6, 3 * LONGEST)
        shades = (127 + 120 * np.sin(x[:, None] + x[None] + i / 5)).astype(np.uint8)
        written = io.BytesIO()
        Image.fromarray(np.stack([shades, shades.T, 255 - shades], -1)).save(written, "PNG")
        found.append(written.getvalue())
    return tuple(found)


def acts(opened: Any, i: int) -> dict[str, str]:
    """What is done, as script: each ends with `change()`, whose drawing is waited for."""
    return {
        "point at a cell": f"document.querySelectorAll('table.map td')[{(37 * i + 5) % (len(ROUTES) * LAYERS)}]"
        ".dispatchEvent(new PointerEvent('pointerover', {bubbles: true}))",
        "a key in the map": "document.querySelector('table.map')"
        f".dispatchEvent(new KeyboardEvent('keydown', {{key: '{('ArrowRight', 'ArrowDown')[i % 2]}'}}))",
        "choose a token": f"document.querySelectorAll('.text span[data-at]')[{69 - i % 4}].click()",
        "another layer": f"(() => {{ const s = document.getElementById('layer'); s.value = {1 + i % LAYERS};"
        " s.dispatchEvent(new Event('input')) })()",
        "another frame": f"(() => {{ const s = document.getElementById('frame'); s.value = {1 + 3 * i % 64};"
        " s.dispatchEvent(new Event('input')) })()",
    }


TIMED = """async (act) => {
  const before = window.drawn.times, began = performance.now();
  (0, eval)(act);
  while (window.drawn.times === before) await new Promise((done) => setTimeout(done, 1));
  return performance.now() - began;
}"""


def main() -> None:
    """Print medians and the slowest of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    held = pane()
    made = page("10,000 tokens", "drawn by chance", [plain(held, None, None)])
    print(machine("cpu"))
    size, most = (n / 2**20 for n in (len(made.encode()), MOST_BYTES))
    print(f"page: {size:.1f} MB of {most:.0f}; attention of {len(held.attending.rows)} tokens")
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, browser() as running:
        path = Path(folder) / "explorer.html"
        path.write_text(made, encoding="utf-8")
        opened = running.new_page(viewport={"width": 1280, "height": 900})
        opened.goto(path.as_uri())
        opened.wait_for_function("window.drawn")
        for i in range(args.rounds):
            for name, act in acts(opened, i).items():
                found.setdefault(name, []).append(opened.evaluate(TIMED, act))
    rows = [[name, f"{median(each):.0f}", f"{max(each):.0f}"] for name, each in found.items()]
    print(table("An interaction, in milliseconds", ["what", "median", "slowest"], rows))


if __name__ == "__main__":
    main()
