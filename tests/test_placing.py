"""Where a model runs and in what: by name, by "auto", from a config, and from every command."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from helpers.report import letter_checkpoint

import videolens as vl
from videolens.__main__ import parser
from videolens.experiments import in_runs
from videolens.model.checkpoints.placing import device_named, dtype_named, where_it_runs
from videolens.pages.demo_parts import DemoSettings
from videolens.runs.config import placed, read_config

CONFIG = {"model": {"name": "shapes", "device": "auto"}, "dataset": "shapes", "experiments": ["flow"]}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return letter_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny", seed=1)


def test_auto_is_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def empty(n: int, *, device: str) -> SimpleNamespace:
        asked.append(device)
        return SimpleNamespace(device=torch.device(device))

    monkeypatch.setattr(torch, "empty", empty)
    for cuda, mps, expected in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert device_named("auto").type == expected == asked[-1]
        assert read_config(CONFIG).model["device"] == expected


def test_a_model_takes_names(checkpoint: Path) -> None:
    model = vl.HookedVideoTransformer.from_pretrained(checkpoint, device="auto", dtype="bfloat16")
    assert model.cfg.dtype == torch.bfloat16 and model.W_E.device == device_named("auto")
    assert vl.HookedVideoTransformer.from_pretrained(checkpoint).cfg.device == "cpu"
    assert dtype_named("torch.float16") == dtype_named(torch.float16) == torch.float16 and dtype_named(None) is None
    for wrong in ("int64", "half precision", "", "nn", torch.int8):
        with pytest.raises(vl.VideolensError, match="give float32, bfloat16 or float16"):
            dtype_named(wrong)
    with pytest.raises(vl.VideolensError, match=r"'gpu' cannot be used here .*use 'cpu', or 'auto'"):
        vl.HookedVideoTransformer.from_pretrained(checkpoint, device="gpu")


def test_a_revision_is_of_the_hub(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def served(name: str, **options: object) -> str:
        asked.update(options, name=name)
        return str(checkpoint)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", served)
    vl.HookedVideoTransformer.from_pretrained("owner/name", revision="v2")
    assert asked["name"] == "owner/name" and asked["revision"] == "v2"
    for here in ("shapes", checkpoint):
        with pytest.raises(vl.VideolensError, match=r"revision 'v2' of .*only repositories on the hub have revisions"):
            vl.HookedVideoTransformer.from_pretrained(here, revision="v2")


def test_a_line_says_where_a_model_runs(shapes: vl.HookedVideoTransformer) -> None:
    assert where_it_runs(shapes, "auto") is None, "a small model on the CPU needs no words"
    large = SimpleNamespace(cfg=SimpleNamespace(device="cpu", dtype=torch.bfloat16))
    weight = torch.empty(7_000_000_000, device="meta")
    large.parameters = lambda: [weight, weight]
    said = where_it_runs(large, "auto")
    assert said is not None and "on the CPU, bfloat16: no CUDA or MPS" in said and "7.0 B" in said
    large.cfg.device = "mps"
    assert where_it_runs(large, "auto") == "on mps, bfloat16"


def test_configs_keep_what_auto_was_and_older_ones_are_as_they_were() -> None:
    config = read_config(CONFIG)
    assert config.model["device"] == str(device_named("auto")) and "revision" not in config.model
    assert read_config(config.plain()).plain() == config.plain()
    assert read_config(CONFIG | {"model": {"name": "a/b", "revision": "v2"}}).model["revision"] == "v2"
    elsewhere = placed(config, device="cuda:1", dtype="bfloat16").model
    assert (elsewhere["device"], elsewhere["dtype"]) == ("cuda:1", "bfloat16") and placed(config) == config
    assert "dtype" not in DemoSettings().plain() and DemoSettings(dtype="float16").plain()["dtype"] == "float16"


@pytest.mark.parametrize("command", ["flow", "demo", "accuracy", *in_runs(), "run"])
def test_every_command_that_runs_a_model_takes_both(command: str) -> None:
    known = parser()._subparsers._group_actions[0].choices[command]
    defaults = {action.dest: action.default for action in known._actions}
    assert defaults["device"] == (None if command == "run" else "auto") and defaults["dtype"] is None


def test_a_dtype_of_the_command_line_reaches_the_model(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from videolens.__main__ import main

    monkeypatch.setenv("VIDEOLENS_CACHE", str(tmp_path / "clips"))
    asked = ["logit_lens", "--model", str(checkpoint), "--dataset", "shapes", "--task", "colour", "--n", "1"]
    assert main([*asked, "--dtype", "bfloat16", "--out", str(tmp_path / "out")]) == 0
    assert vl.Run.load(tmp_path / "out").result().settings.dtype == "bfloat16"
    assert main([*asked, "--device", "gpu", "--out", str(tmp_path / "other")]) == 2
    assert "'gpu' cannot be used here" in capsys.readouterr().err
