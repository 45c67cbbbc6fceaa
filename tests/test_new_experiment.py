"""docs/contributing.md, "A new experiment", as a newcomer would try it: its template, filled in, is one folder more.

The package is copied, the folder is put into it, and no other file is touched. Everything runs in one process of its
own, in which `videolens` is the copy.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.templates import filled_in

import videolens

PACKAGE = Path(videolens.__file__).parent

TRY = """
import json, os, sys
from pathlib import Path

import pytest

import videolens as vl
from videolens.__main__ import main

out, architecture = Path(sys.argv[1]), sys.argv[2]
found = {"package": vl.__file__, "public": [name for name in ("Echo", "measure_echo") if name in vl.__all__]}

# the direct call
model = vl.HookedVideoTransformer.from_pretrained("shapes")
questions = vl.load_dataset("shapes", tasks=["moving direction"], n=2)
bare = vl.Question(questions[0].video, "What moves?", completion="It is", id="bare")
asked = vl.measure_echo(model, [*questions, bare], progress=False)
loaded = vl.Echo.load(asked.save(out / "saved"))
loaded.figure().savefig(out / "figure.png")
found |= {
    "rows": loaded.to_dataframe().to_dict("records"),
    "same": loaded.table.equals(asked.table) and loaded.settings == asked.settings,
    "mean": loaded.mean("moving direction").value,
    "skipped": loaded.skipped()["reason"].tolist(),
    "forwards": loaded.settings.forwards,
}

# a run, and the command
config = {"model": "shapes", "dataset": {"name": "shapes", "tasks": ["moving direction"], "n": 2}, "figures": True}
(out / "run.yaml").write_text(json.dumps(config | {"experiments": ["echo"]}))
found["run"] = main(["run", str(out / "run.yaml"), "--out", str(out / "run")])
found["command"] = main(["echo", "--model", "shapes", "--dataset", "shapes", "--n", "2", "--out", str(out / "command")])

# the rules of the house hold in it
found["rules"] = int(pytest.main([architecture, "--noconftest", "-q", "-p", "no:cacheprovider", "-k", "echo"]))
(out / "found.json").write_text(json.dumps(found))
os._exit(0)  # nothing is left to do, and taking torch apart takes seconds
"""


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Where everything was written, and what was found."""
    folder = tmp_path_factory.mktemp("house")
    copy = folder / "copy" / "videolens"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("assets", "__pycache__"))
    (copy / "assets").symlink_to(PACKAGE / "assets")
    filled_in("experiment", copy / "experiments" / "echo")
    out = folder / "out"
    out.mkdir()
    environment = os.environ | {"PYTHONPATH": str(copy.parent), "HF_HUB_OFFLINE": "1"}
    environment |= {"VIDEOLENS_CACHE": str(tmp_path_factory.getbasetemp() / "clips")}
    architecture = Path(__file__).with_name("test_architecture.py")
    ended = subprocess.run(
        [sys.executable, "-c", TRY, str(out), str(architecture)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    found = json.loads((out / "found.json").read_text())
    assert Path(found["package"]).parent == copy
    return out, found


def test_the_direct_call_has_a_public_name(tried: tuple[Path, dict[str, Any]]) -> None:
    out, found = tried
    assert found["public"] == ["Echo", "measure_echo"]
    assert [row["task"] for row in found["rows"]] == ["moving direction"] * 2
    assert all(0 <= row["entropy"] <= 2 and row["choice"] in "ABCD" for row in found["rows"])
    assert found["same"] and found["mean"] == pytest.approx(sum(row["entropy"] for row in found["rows"]) / 2)
    assert found["skipped"] == ["the question has no options"] and found["forwards"] == 1
    assert {path.name for path in (out / "saved").iterdir()} == {"echo.parquet", "echo.json"}
    assert (out / "figure.png").stat().st_size > 1000


@pytest.mark.parametrize("way", ["run", "command"])
def test_a_run_and_a_command_of_its_own_write_result_figure_and_page(
    tried: tuple[Path, dict[str, Any]], way: str
) -> None:
    out, found = tried
    assert found[way] == 0
    results = out / way / "results"
    assert {"echo.parquet", "echo.json", "figure.png"} <= {path.name for path in (results / "echo").iterdir()}
    page = (results / "report.html").read_text()
    [section] = re.findall(r'<section id="experiment-1">(.*?)</section>', page, flags=re.DOTALL)
    assert "<h2>How undecided the model is</h2>" in section and 'src="data:image/' in section
    assert "mean entropy in bits" in section, "what the result says of itself"


def test_the_rules_of_the_house_hold_in_it(tried: tuple[Path, dict[str, Any]]) -> None:
    assert tried[1]["rules"] == 0
