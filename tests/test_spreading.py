"""Decoder layers on several devices: the plan, what is refused, and that nothing comes out otherwise.

Two devices that are not there stand in for accelerators (`helpers.devices`), in a process of its own. What that cannot
show, on one CPU: CUDA's kernels, gradients (torch asks a real accelerator for them), the speed of moving the stream,
and memory that a device really has.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.engine import N_LAYERS, random_model
from helpers.report import letter_checkpoint

import videolens as vl
from videolens.errors import ModelError
from videolens.model.checkpoints.spreading import plan_layers, spread

TESTS = Path(__file__).parent
TRY = """
import json
import sys

import torch

from helpers.devices import pretended
from helpers.engine import all_windows, random_pair
from helpers.prompts import tiny_prompt

import videolens as vl
from videolens.model.checkpoints.spreading import spread

model, prompt = random_pair("a key head per head, biases")
other = tiny_prompt(model, seed=1)
cuts = [
    *all_windows(5, 2),
    vl.Knockout("video", "last", [2, 4], heads=[1]),
    vl.Scale("video", "last", [1, 3], 0.5),
    vl.Add(torch.ones(32), "last", 3),
    vl.Patch("resid_post", 2, "stem", source=vl.SourceRun.record(model, other, "resid_post", layers=2)),
]
quiet = {"progress": False}


def column(result, name):
    return torch.tensor(result.table[name].to_numpy(dtype=float))


ASKED = {
    "logits": lambda: model(prompt),
    "loss": lambda: model(prompt, return_type="loss"),
    "batch": lambda: model(vl.Prompt.batch([prompt, other])),
    "written": lambda: model.generate(prompt, 4, cuts[:1], stop_at_eos=False).tokens,
    "sweep": lambda: vl.sweep(model, prompt, cuts, verify=True).logits,
    "sweep, little memory": lambda: vl.sweep(model, prompt, cuts, max_memory=200_000).logits,
    "resumed": lambda: model.resume(model.run_clean(prompt), layer=2, row=5),
    "compiled": lambda: model.compile(vl.Knockout("video", "last", [1, 2, 3]))(prompt),
    "pattern": lambda: model.run_with_cache(prompt)[1]["pattern", 3],
    "biases": lambda: model.accumulated_bias(4),
    "weights": lambda: model.W_Q,
    "flow": lambda: column(vl.trace_flow(model, prompt, samples="all", window=1, **quiet), "p_knockout"),
    "answer": lambda: column(vl.answer_trace(model, prompt, samples="all", **quiet), "probability"),
    "lens": lambda: column(vl.logit_lens(model, prompt, samples="all", **quiet), "probability"),
    "segments": lambda: vl.measure_attention(model, prompt).mass,
    "long answer": lambda: column(
        vl.trace_generation(model, prompt, anchors=[0, 3], n_anchors=2, max_new_tokens=4, **quiet), "p_knockout"
    ),
}
whole = {name: ask() for name, ask in ASKED.items()}
found = {}
with pretended():
    spread(model, {0: "cpu", 1: "cpu", 2: "privateuseone:1", 3: "privateuseone:1", 4: "privateuseone:2"})
    found["repr"], found["devices"] = repr(model), [str(device) for device in model.devices]
    found["mlp"] = str(model.run_with_cache(prompt)[1]["mlp_out", 3].device)
    for name, ask in ASKED.items():
        try:
            value = ask()
            apart = (value.detach().cpu().double() - whole[name].detach().double()).abs().max()
            found[name] = float(apart / whole[name].double().abs().max().clamp(min=1e-6))
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"[:300]
json.dump(found, open(sys.argv[1], "w"))
"""


@pytest.mark.slow
def test_nothing_comes_out_otherwise(tmp_path: Path) -> None:
    code = [sys.executable, "-c", TRY, str(tmp_path / "found.json")]
    ran = subprocess.run(code, cwd=TESTS, env=with_paths(), capture_output=True, text=True, timeout=900)
    assert ran.returncode == 0, ran.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert found.pop("devices") == ["cpu", "privateuseone:1", "privateuseone:2"]
    assert "on cpu, privateuseone:1, privateuseone:2;" in found.pop("repr")
    assert found.pop("mlp") == "privateuseone:1", "a layer's activations are where it is"
    wrong = {name: value for name, value in found.items() if isinstance(value, str) or not value <= 1e-4}
    assert len(found) == 16 and wrong == {}


def with_paths() -> dict[str, str]:
    """The environment, in which the package and the tests' helpers are found."""
    import os

    return os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}


# -- the plan ---------------------------------------------------------------------------------------------------------


def test_the_planner_spreads_layers_evenly_and_keeps_the_rest_together(monkeypatch: pytest.MonkeyPatch) -> None:
    accelerate = pytest.importorskip("accelerate.utils")
    model = random_model("grouped heads").to("meta")
    sizes, layer = accelerate.compute_module_sizes(model), accelerate.compute_module_sizes(model.blocks[0])[""]
    rest = sizes[""] - N_LAYERS * layer
    monkeypatch.setattr("videolens.model.checkpoints.spreading.device_named", torch.device)

    def placed(**room: float) -> list[str]:
        given = {int(name[1:]) if name[0] == "g" else name: int(size) for name, size in room.items()}
        home, places = plan_layers(model, given)
        assert str(home) == ("cuda:0" if 0 in given else "cpu")
        assert list(places) == list(range(N_LAYERS))
        return [str(device) for device in places.values()]

    everywhere = placed(g0=rest + 10 * layer, g1=10 * layer, cpu=100 * layer)
    assert everywhere[0] == "cuda:0" and everywhere[-1] == "cuda:1" and sorted(everywhere) == everywhere
    assert 2 <= everywhere.count("cuda:0") <= 3
    # the rest takes its place on the first, and the CPU what no accelerator holds
    little = placed(g0=rest + 2.9 * layer, g1=2.9 * layer, cpu=100 * layer)
    assert little[0].startswith("cuda") and little[-1] == "cpu" and sorted(little, key=little.index) == little
    assert placed(cpu=sizes[""] + layer) == ["cpu"] * N_LAYERS
    for room in ({"g0": rest - 1.0, "cpu": 100.0 * layer}, {"g0": rest + layer * 1.5, "cpu": 0}):
        with pytest.raises(ModelError, match=r"the layers need .* GiB and the rest .* more than there is \(0: "):
            placed(**room)


def test_on_this_machine_auto_is_one_of_its_devices(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    checkpoint = letter_checkpoint(tmp_path / "tiny", seed=1)
    whole = vl.HookedVideoTransformer.from_pretrained(checkpoint)
    for given in ("auto", {layer: "cpu" for layer in range(whole.cfg.n_layers)}):
        model = vl.HookedVideoTransformer.from_pretrained(checkpoint, device_map=given)
        ids = torch.arange(12)[None] % model.cfg.d_vocab
        assert set(model.devices) <= {torch.device("cpu"), *(torch.device("cuda", i) for i in range(8))}
        assert (model(ids).cpu() - whole(ids)).abs().max() < 1e-3


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({0: "cpu", 1: "cpu"}, r"leaves out the layers \[2\] of 3: name every layer, 0 … 2"),
        ({layer: "cpu" for layer in (0, 1, 2, 7)}, r"names the layers \[7\]; the model's are 0 … 2"),
        ({0: "cpu", 1: "gpu", 2: "cpu"}, "device 'gpu' cannot be used here"),
        ({0: "cpu", 1: 99, 2: "cpu"}, "device 'cuda:99' cannot be used here"),
        ({"0": "cpu"}, "names '0': its keys are the numbers of decoder layers"),
        ({"model.layers.0": 0}, "names 'model.layers.0'"),
        ({True: "cpu"}, "names True"),
        ({}, "device_map is {}: give 'auto', or a device for every decoder layer"),
        ("balanced", "device_map is 'balanced': give 'auto'"),
    ],
)
def test_maps_that_are_none(given: object, said: str, tmp_path: Path) -> None:
    checkpoint = letter_checkpoint(tmp_path / "tiny", seed=1)
    with pytest.raises(ModelError, match=said):
        vl.HookedVideoTransformer.from_pretrained(checkpoint, device_map=given)  # type: ignore[arg-type]


def test_two_places_and_quantised_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"device='cuda' and device_map='auto' both say where the model is: give one"):
        vl.HookedVideoTransformer.from_pretrained("shapes", device="cuda", device_map="auto")
    model = random_model("grouped heads")
    with monkeypatch.context() as patched:
        patched.setattr("videolens.model.checkpoints.spreading.is_quantised", lambda linear: True)
        with pytest.raises(ModelError, match=r"device_map is for plain float weights, and .* is quantised, as are \d+"):
            spread(model, "auto")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(
        ModelError, match=r"needs accelerate, .*pip install 'videolens\[accelerate\]', or name a device"
    ):
        plan_layers(model)
