"""Bars: on a terminal tqdm's, in a file a line every ten seconds at most, in a notebook never on standard error."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.utils as hub
import pytest
import tqdm.auto
import tqdm.notebook
from helpers.models import tiny_llava_next_video
from transformers.utils import logging

import videolens as vl
from videolens import progress
from videolens.model.checkpoints.quietly import without_bars
from videolens.progress import EVERY_S, Lines, progress_bar

PACKAGE = Path(vl.__file__).parent


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_all_bars_come_from_one_place() -> None:
    makers = [path.name for path in PACKAGE.rglob("*.py") if re.search(r"(import|from) tqdm", path.read_text())]
    assert makers == ["progress.py"]


def test_a_file_gets_a_line_every_ten_seconds_at_most() -> None:
    now, stream = [0.0], io.StringIO()
    bar = Lines("flow", total=1000, unit="questions", digits=1, stream=stream, clock=lambda: now[0])
    with bar:
        for _ in range(1000):
            now[0] += 0.125
            bar.update(1)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 125 // EVERY_S
    assert lines[0] == "flow: 80.0 of 1000 questions (8 %), 0:10, about 1:55 left"
    assert "\r" not in stream.getvalue()
    quick = io.StringIO()
    now[0] = 0.0
    bar = Lines("flow", total=None, unit="clips", digits=0, stream=quick, clock=lambda: now[0])
    now[0] = 9.9
    bar.update(3)
    assert quick.getvalue() == "", "what takes less needs no line"
    now[0] = 3700.0
    bar.set_description_str("drawing")
    bar.update(0)
    assert quick.getvalue() == "drawing: 3 clips, 1:01:40\n"
    bar.n = 4.0  # as the loop over questions does
    bar.update(0)
    assert quick.getvalue().count("\n") == 1


def test_what_it_is_depends_on_where_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert isinstance(progress_bar("flow", total=3), Lines)
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert isinstance(progress_bar("flow", total=3, shown=False), Lines)
    with progress_bar("flow", total=3) as bar:
        assert isinstance(bar, tqdm.auto.tqdm)
        bar.update(1.5)
        bar.refresh()
    assert "1.5/3 questions" in sys.stderr.getvalue()
    monkeypatch.setattr(sys, "stderr", None)  # pythonw has none
    progress_bar("flow", total=3).update()


@pytest.mark.parametrize("widgets", [True, False])
def test_a_notebook_has_no_red_blocks(monkeypatch: pytest.MonkeyPatch, widgets: bool) -> None:
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "ipykernel", SimpleNamespace())
    monkeypatch.setattr(tqdm.notebook, "IProgress", object() if widgets else None)
    out, red = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", red)
    made: list[dict] = []
    monkeypatch.setattr(tqdm.auto, "tqdm", lambda **options: made.append(options) or "widget")
    bar = progress_bar("flow", total=3)
    if widgets:
        assert bar == "widget" and made[0]["total"] == 3
        return
    now = progress.time.monotonic() + EVERY_S
    bar._clock = lambda: now
    bar.update()
    assert out.getvalue().startswith("flow: 1.0 of 3 questions") and red.getvalue() == ""


def test_transformers_loads_without_bars(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tiny_llava_next_video(tmp_path)
    before = (logging.is_progress_bar_enabled(), hub.are_progress_bars_disabled())
    try:
        for shown in (True, False):
            (logging.enable_progress_bar if shown else logging.disable_progress_bar)()
            hub.enable_progress_bars()
            capfd.readouterr()
            vl.HookedVideoTransformer.from_pretrained(tmp_path)
            assert "Loading weights" not in capfd.readouterr().err
            assert logging.is_progress_bar_enabled() is shown, "as it was"
            assert not hub.are_progress_bars_disabled()
        hub.disable_progress_bars()
        with pytest.raises(KeyError), without_bars():
            raise KeyError
        assert hub.are_progress_bars_disabled()
    finally:
        (logging.enable_progress_bar if before[0] else logging.disable_progress_bar)()
        (hub.disable_progress_bars if before[1] else hub.enable_progress_bars)()


def test_a_log_holds_lines_and_no_bars(tmp_path: Path) -> None:
    """A whole command with its output in a file."""
    log = tmp_path / "log"
    command = "from videolens.__main__ import main; import sys; sys.exit(main(sys.argv[1:]))"
    asked = ["logit_lens", "--model", "shapes", "--dataset", "shapes", "--n", "1", "--out", str(tmp_path / "out")]
    with log.open("w") as file:
        subprocess.run([sys.executable, "-c", command, *asked], stdout=file, stderr=file, check=True)
    text = log.read_text()
    assert "\r" not in text and "%|" not in text and len(text) < 2000, text


def test_a_notebook_without_widgets_shows_no_red_block() -> None:
    """Whatever imports tqdm first, its warning that there are no widgets is not shown."""
    lines = (
        "import sys, types",
        "shell = types.SimpleNamespace(config={'IPKernelApp': {}}, kernel=object())",
        "sys.modules['IPython'] = types.SimpleNamespace(get_ipython=lambda: shell)",
        "sys.modules['ipykernel'] = sys.modules['ipykernel.zmqshell'] = types.ModuleType('ipykernel')",
        "sys.modules['ipywidgets'] = None",
    )
    for before, red in (("", True), ("import videolens; videolens.VideolensError", False)):
        code = "\n".join([*lines, before, "import tqdm.auto"])
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert ("IProgress not found" in done.stderr) == red, done.stderr
