"""Values of the wrong type, as a user without a type checker passes them: still one clear error.

The other tests run with every annotation checked, which stops such values at the door; so these run in a process of
their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CALLS = """
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import videolens as vl
from videolens.experiments.flow.experiment import FlowExperiment
from videolens.experiments.pathway.experiment import PathwayExperiment
from videolens.engine.stages import stage_interventions
from videolens.model.decoder.rows import positions_of
from videolens.experiments.common.storing import read_result
from videolens.interventions.layer_sets import check_window
from videolens.experiments.flow.measures import open_layers

video = vl.Video.from_array(np.zeros((3, 16, 16, 3), dtype=np.uint8))
tokens = vl.TokenMap.from_spans(8, {"stem": [6]}, grid=(1, 2, 2), video=range(1, 5))

table = torch.zeros(1, 8, 2)
prompt = vl.Prompt(torch.zeros(1, 8, dtype=torch.int64), tokens, torch.zeros(1, 8, 2), (table, table))
run = vl.SourceRun(prompt, {"blocks.1.hook_resid_pre": torch.zeros(1, 8, 2)})

model, pathway = SimpleNamespace(cfg=SimpleNamespace(n_layers=2, n_heads=1)), vl.Pathway.closed(n_layers=2)

def flow_of(n):
    return SimpleNamespace(settings=SimpleNamespace(n_layers=2), changes=lambda route, task, measure: np.zeros((n, 2)))

flow, unknown = flow_of(1), flow_of(0)
damaged = Path(tempfile.mkdtemp())
(damaged / "table.json").write_text("{")
(damaged / "table.parquet").write_text("x")

def spans(where):
    return vl.TokenMap.from_spans(8, {"stem": where}, grid=(1, 2, 2), video=range(1, 5))

assert vl.Patch("resid_pre", np.int64(1), np.array([2, 1]), source=run).positions == (1, 2)
assert vl.Knockout("video", "last", layers=np.int64(1)).layers == (1,)
assert vl.Knockout("video", "last", layers=torch.tensor([2, 1])).layers == (1, 2)
assert spans(np.array([6]))["stem"].tolist() == [6]

CALLS = [
    lambda: vl.load_dataset(None),
    lambda: vl.load_dataset(".", tasks=3),
    lambda: vl.load_dataset(".", split=3),
    lambda: vl.load_dataset("shapes", seed="x"),
    lambda: vl.load_dataset("shapes", n=True),
    lambda: vl.Video.open("clip.mp4", sampling=None),
    lambda: vl.Video.open("clip.mp4", sampling=["first"]),
    lambda: vl.Video.open("clip.mp4", sampling=[1.5]),
    lambda: vl.Knockout("video", "last", layers=[1.5]),
    lambda: vl.Knockout("video", "last", layers="all"),
    lambda: vl.Knockout("video", "last", layers=None),
    lambda: vl.Knockout.route(3, layers=1),
    lambda: vl.Knockout("video", "last", layers=True),
    lambda: vl.Knockout("video", "last", layers={0: 1}),
    lambda: vl.Pathway.closed(n_layers="12"),
    lambda: vl.Pathway.closed(n_layers=True),
    lambda: vl.Pathway.closed(n_layers=0),
    lambda: vl.Pathway.published(7),
    lambda: vl.Pathway.published("VideoLLaMA3-7B", cross_frame=[1]),
    lambda: vl.Pathway.from_dict({"n_layers": None}),
    lambda: vl.Pathway.from_dict({"n_layers": 12, "name": ["a"]}),
    lambda: vl.Pathway.from_dict({"n_layers": 12, "cross_frame": [[0, 1]]}),
    lambda: vl.Pathway.from_dict({"preset": ["a"]}),
    lambda: vl.Pathway.from_dict({"preset": "VideoLLaMA3-7B", "masks": "closed"}),
    lambda: vl.Pathway.from_dict({"preset": "VideoLLaMA3-7B", "cross_frame": [1]}),
    lambda: PathwayExperiment(model, pathway=pathway, engine="fast"),
    lambda: FlowExperiment(model, engine="fast"),
    lambda: PathwayExperiment(model, pathway=pathway, seeds="3"),
    lambda: PathwayExperiment(model, pathway=pathway, seeds=2.5),
    lambda: PathwayExperiment(model, pathway=pathway, seed=None),
    lambda: PathwayExperiment(model, pathway=pathway, random=None),
    lambda: PathwayExperiment(model, pathway=pathway, random=[["edges"]]),
    lambda: vl.Pathway.from_flow(None),
    lambda: open_layers(flow, "video -> last", threshold="low", bin=1, groups=[None], measure="answer"),
    lambda: open_layers(flow, "video -> last", threshold=float("nan"), bin=1, groups=[None], measure="answer"),
    lambda: open_layers(flow, "video -> last", threshold=-5, bin="1", groups=[None], measure="answer"),
    lambda: open_layers(unknown, "video -> last", threshold=-5, bin=1, groups=[None], measure="answer"),
    lambda: read_result(damaged, "table.json", what="flow map"),
    lambda: read_result(damaged, "table.parquet", what="flow map"),
    lambda: tokens[3],
    lambda: spans("17"),
    lambda: spans(None),
    lambda: spans([6.5]),
    lambda: spans([True, False]),
    lambda: vl.TokenMap.from_spans(8, [("stem", [6])], grid=(1, 2, 2), video=range(1, 5)),
    lambda: check_window(1.5, 12),
    lambda: check_window("3", 12),
    lambda: positions_of(torch.zeros(1, 8), ["stem", "last"]),
    lambda: stage_interventions(None, None, vl.Knockout("video", "last", layers=1)),
    lambda: vl.SourceRun(prompt, None),
    lambda: vl.SourceRun(prompt, {"blocks.1.hook_resid_pre": [0.0]}),
    lambda: vl.Patch(["resid_pre"], 1, source=run),
    lambda: vl.Patch("resid_pre", 1, source={}),
    lambda: vl.Patch("resid_pre", 1.5, source=run),
    lambda: vl.Patch("resid_pre", 1, [0.5], source=run),
    lambda: vl.Patch("resid_pre", 1, [[1, 2]], source=run),
    lambda: vl.patch_map(None, 3),
    lambda: vl.patch_map(None, prompt, "the corrupted one"),
    lambda: vl.patch_map(None, prompt, prompt, over=[3]),
    lambda: vl.Question("clip.mp4", "Which way?", ["left", "right"]),
    lambda: vl.Question(video, None, ["left", "right"]),
    lambda: vl.Question(video, "How many?", [1, 2]),
    lambda: vl.Video.from_array(video.frames, n_frames=2.5),
    lambda: vl.Video.from_array(video.frames, start="1"),
    lambda: video.frozen(0.5),
    lambda: video.shuffled("seed"),
    lambda: video.blank(None),
    lambda: video.swapped("0", 1),
    lambda: video.replaced(0, 2, "other.mp4"),
    lambda: video.replaced(0, 2, video, frames=1),
    lambda: vl.Question(video, "How many?").counterfactual(3),
]
for number, call in enumerate(CALLS):
    try:
        raise SystemExit(f"call {number} gave {call()!r}")
    except vl.VideolensError as error:
        assert len(str(error)) > 20
"""


def test_wrong_types_are_clear_errors() -> None:
    root = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", CALLS], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
