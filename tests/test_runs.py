"""Runs: their configs are checked before anything runs, their directories belong to one run, bad clips are recorded,
and the tables are those of the experiments themselves."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from helpers.report import letter_checkpoint

import videolens as vl
from videolens.__main__ import main
from videolens.experiments import in_runs
from videolens.experiments.accuracy.experiment import measure_accuracy
from videolens.experiments.common.asking import ask_all
from videolens.runs.checking import plain
from videolens.runs.config import digest, read_config
from videolens.runs.directory import RunDirectory
from videolens.runs.parts import Chunk, DamagedPartError, read_part
from videolens.runs.writing import LEFTOVER, write_atomic

ROUTES = ["cross-frame", "video -> last"]
FLOW = {"name": "flow", "window": 1, "samples": "all", "routes": ROUTES}
N = 3


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return letter_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny", seed=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three questions in TVBench's layout."""
    folder = tmp_path_factory.mktemp("data")
    assert main(["data", "shapes", str(folder), "--n", str(N), "--task", "colour"]) == 0
    return folder


@pytest.fixture
def config(checkpoint: Path, data: Path) -> dict[str, Any]:
    return {"model": str(checkpoint), "dataset": str(data), "experiments": [FLOW], "chunk": 2, "figures": False}


def written(folder: Path, content: Any) -> str:
    path = folder / "config.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(path)


def files(out: Path) -> dict[str, tuple[int, int, bytes]]:
    found = (path for path in out.rglob("*") if path.is_file() and path.name not in (".videolens-lock", "log.jsonl"))
    return {str(p.relative_to(out)): (p.stat().st_ino, p.stat().st_mtime_ns, p.read_bytes()) for p in found}


# -- configs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modle": "shapes"}, r"config.yaml.modle: unknown field 'modle'; did you mean 'model'\?"),
        ({"model": None}, r"config.yaml.model: it takes text or a mapping, got None"),
        ({"model": {"name": "shapes", "dtpye": "x"}}, r"config.yaml.model.dtpye: unknown field 'dtpye'"),
        ({"model": {"dtype": "float32"}}, r"config.yaml.model: the field 'name' is missing"),
        ({"dataset": {"name": "shapes", "tsak": "colour"}}, r"config.yaml.dataset.tsak: .*did you mean 'task' or"),
        (
            {"dataset": {"name": "shapes", "n": "many"}},
            r"config.yaml.dataset.n: it takes a whole number or null, got 'many'",
        ),
        ({"dataset": {"split": "test"}}, r"config.yaml.dataset: the field 'name' is missing"),
        ({"experiments": []}, r"config.yaml.experiments: is empty"),
        ({"experiments": "flow"}, r"config.yaml.experiments: it takes a list of text or a mapping, got 'flow'"),
        ({"experiments": [{"window": 1}]}, r"config.yaml.experiments\[0\]: the field 'name' is missing"),
        ({"experiments": ["flow", "flwo"]}, r"experiments\[1\].name: unknown experiment 'flwo'; did you mean 'flow'\?"),
        ({"experiments": [FLOW | {"windw": 3}]}, r"experiments\[0\].windw: unknown option of the experiment 'flow'"),
        (
            {"experiments": [FLOW | {"window": "3"}]},
            r"experiments\[0\].window: it takes a whole number or null, got '3'",
        ),
        (
            {"experiments": [FLOW | {"window": True}]},
            r"experiments\[0\].window: it takes a whole number or null, got True",
        ),
        ({"experiments": [FLOW | {"samples": "corect"}]}, r"experiments\[0\].samples: .*did you mean 'correct'\?"),
        ({"experiments": [FLOW | {"routes": [1]}]}, r"experiments\[0\].routes: it takes a list of text, got \[1\]"),
        ({"experiments": [FLOW | {"label": "../x"}]}, r"experiments\[0\].label: '../x' cannot be a folder's name"),
        ({"experiments": [FLOW, FLOW | {"label": "flow 1"}]}, r"experiments\[1\].label: 'flow 1' is there twice"),
        ({"experiments": [FLOW | {"label": "summary.json"}]}, r"\[0\].label: 'summary.json' cannot be a folder's name"),
        ({"experiments": [FLOW | {"label": "a" * 300}]}, r"experiments\[0\].label: .* at most 100 letters"),
        ({"experiments": [{"name": ["flow"]}]}, r"experiments\[0\]: the field 'name' is \['flow'\], which is no text"),
        (
            {"experiments": [FLOW | {"seed": -3}]},
            r"config.yaml.experiments\[0\].seed: it takes a whole number from 0 to .*, got -3",
        ),
        ({"seed": 2**70}, r"config.yaml.seed: it takes a whole number from 0 to .*, got \d+"),
        (
            {"experiments": ["pathway"]},
            r"experiments\[0\]: the option of the experiment 'pathway' 'pathway' is missing",
        ),
        (
            {"experiments": [{"name": "segment_attention", "fwd_hooks": [["blocks.0.attn.hook_pattern", "f"]]}]},
            r"\[0\].fwd_hooks: it takes a list of something that only Python can give, got \[\['blocks.0",
        ),
        (
            {"experiments": [{"name": "attention_map", "layers": [0, "1"]}]},
            r"\[0\].layers: it takes a list of a whole number or a whole number or null, got \[0, '1'\]",
        ),
        (
            {"experiments": [FLOW | {"windw": 3, "verify": 1}]},
            r"\[0\].verify: it takes true or false, got 1; .*\[0\].windw: unknown option",
        ),
        ({"threads": 0}, r"config.yaml.threads: it takes .* from 1 to \d+, for this machine or null, got 0"),
        ({"threads": 10**6}, r"config.yaml.threads: .* got 1000000"),
        ({"chunk": 0}, r"config.yaml.chunk: it takes a whole number from 1 on, got 0"),
        ({"seed": 1.5}, r"config.yaml.seed: it takes a whole number .*, got 1.5"),
        ({"experiments": [FLOW | {"window": 99}]}, r"config.yaml.experiments\[0\] \(flow\): a window of 99"),
        ({"dataset": {"name": "shapes", "task": "colr", "n": 1}}, r"config.yaml.dataset: unknown task 'colr'"),
        ({"model": "shape"}, r"unknown model 'shape'; did you mean 'shapes'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_config_is_checked_before_anything_runs(
    change: dict[str, Any], message: str, config: dict[str, Any], tmp_path: Path
) -> None:
    path = written(tmp_path, config | change)
    with pytest.raises(vl.VideolensError, match=message):
        vl.run(path, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists(), "a run that does not begin leaves nothing"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: [", "config.yaml is not YAML"),
        ("model: shapes\nmodel: shapes\n", "the key 'model' is there twice.*line 2"),
        ("- a\n- b\n", r"a run is a mapping with model, dataset and experiments, got \['a', 'b'\]"),
        ("model: 2026-01-01\n", "holds something else than text, numbers"),
        ("", "a run is a mapping"),
    ],
)
def test_a_file_that_is_no_config(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(vl.VideolensError, match=message):
        read_config(written(tmp_path, text))
    with pytest.raises(vl.VideolensError, match=r"nowhere.yaml cannot be read \(No such file"):
        read_config(tmp_path / "nowhere.yaml")


def test_a_config_is_resolved_and_reads_itself_back(config: dict[str, Any], tmp_path: Path) -> None:
    found = read_config(config | {"seed": 4, "experiments": [FLOW, FLOW | {"seed": 9}, FLOW | {"label": "again"}]})
    assert [each.label for each in found.experiments] == ["flow 1", "flow 2", "again"]
    assert [each.options["seed"] for each in found.experiments] == [4, 9, 4] and found.dataset["seed"] == 4
    assert found.experiments[0].options["engine"] == "exact" and found.model["device"] == "cpu"
    assert read_config(written(tmp_path, found.yaml())).plain() == found.plain()


def test_options_of_every_experiment_can_be_given_in_yaml(config: dict[str, Any], tmp_path: Path) -> None:
    listed = [
        {"name": "attention_map", "layers": [0, 1], "heads": 0, "words": "last"},
        {"name": "generation", "anchors": ["goes", "moves"], "n_anchors": 1},
        {"name": "logit_lens", "keywords": {"red": ["red", "scarlet"]}},
        {"name": "patch_map", "positions": [1, 2], "over": {"red": "red"}, "answers": ["A", 1]},
        {"name": "pathway", "pathway": {"preset": "VideoLLaMA3-7B"}},
        {"name": "probe", "targets": {"which": "answer of moving direction"}, "sites": ["last"]},
        {"name": "stress", "pathway": {"preset": "VideoLLaMA3-7B"}, "perturbations": ["noise"]},
    ]
    listed += [{"name": name} for name in in_runs() if name not in {each["name"] for each in listed}]
    found = read_config(config | {"experiments": listed})
    for each, given in zip(found.experiments, listed, strict=True):
        assert each.options | given == each.options | {"name": each.name}, each
    assert read_config(written(tmp_path, found.yaml())).plain() == found.plain()


def test_anchors_and_merge_keys_of_yaml(tmp_path: Path) -> None:
    start = "model: shapes\ndataset: {name: shapes, n: 2}\n"
    listed = "experiments:\n  - &one {name: flow, window: 5, samples: all}\n  - {<<: *one, window: 3}\n  - *one\n"
    found = read_config(written(tmp_path, start + listed)).experiments
    assert [(each.options["window"], each.options["samples"]) for each in found] == [(5, "all"), (3, "all"), (5, "all")]
    with pytest.raises(vl.VideolensError, match="holds itself"):
        read_config(written(tmp_path, start + "experiments: &all [*all]\n"))


def test_every_registered_experiment_has_its_classes() -> None:
    for name, declaration in in_runs().items():
        made, result = declaration.experiment_class, declaration.result_class
        assert made.name == name and (made.row._fields[0] == "pair" or {"question", "task"} <= set(made.row._fields))
        assert callable(result.load) and callable(result.figure)


# -- results ----------------------------------------------------------------------------------------------------------


def test_a_run_gives_what_the_experiments_give(
    config: dict[str, Any], data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    accuracy = {"name": "accuracy", "conditions": ["as is", "blank"]}
    found = vl.run(config | {"experiments": [FLOW, accuracy]}, tmp_path, progress=False)
    model, questions = vl.HookedVideoTransformer.from_pretrained(checkpoint), vl.load_dataset(data)
    flow = vl.trace_flow(model, questions, routes=ROUTES, window=1, samples="all")
    pd.testing.assert_frame_equal(found.result("flow").table, flow.table, check_exact=True)
    asked = measure_accuracy(model, questions, conditions=["as is", "blank"])
    pd.testing.assert_frame_equal(found.result("accuracy").table, asked.table, rtol=1e-5)
    assert found.labels == ["flow", "accuracy"] and found.errors.empty
    counts = found.summary["experiments"]["flow"]
    assert (counts["asked"], counts["answered"], counts["rows"]) == (N, N, N * len(ROUTES) * model.cfg.n_layers)
    assert "| flow | 3 | 3 | 0 | 0 |" in str(found)
    made = json.loads((tmp_path / "run.json").read_text())
    assert made["identity"]["versions"]["torch"] == torch.__version__ and made["identity"]["config"]["seed"] == 0
    assert set(made["identity"]["model"]["files"]) >= {"config.json", "model.safetensors", "tokenizer.json"}
    with pytest.raises(vl.VideolensError, match="unknown experiment of this run 'flo'; did you mean 'flow'"):
        found.result("flo")
    with pytest.raises(vl.VideolensError, match="name one"):
        found.result()


def test_a_run_that_verifies_says_what_a_call_says(config: dict[str, Any], data: Path, tmp_path: Path) -> None:
    found = vl.run(config | {"experiments": [FLOW | {"verify": True}]}, tmp_path, progress=False).result()
    model, questions = vl.HookedVideoTransformer.from_pretrained(config["model"]), vl.load_dataset(data)
    called = vl.trace_flow(model, questions, routes=ROUTES, window=1, samples="all", verify=True)
    assert found.settings == replace(called.settings, seconds=None)
    assert 0 <= found.settings.verified < 1e-4 and 0 < found.settings.forwards < found.settings.full_forwards


def says_what_a_call_says(found: vl.Run, model: vl.HookedVideoTransformer, data: Path) -> None:
    """Every result of a run is that of asking all questions in one go, but for the time it took."""
    for each in read_config(found.path / "config.yaml").experiments:
        experiment = in_runs()[each.name].experiment_class(model, **each.options)
        called = ask_all(experiment, vl.load_dataset(data), progress=False)._contents()
        for name, content in found.result(each.label)._contents().items():
            if isinstance(content, pd.DataFrame):
                pd.testing.assert_frame_equal(content, called[name], rtol=1e-5)
                continue
            for one, other in zip(
                *([made] if isinstance(made, dict) else made for made in (content, called[name])), strict=True
            ):
                assert plain(one) == plain(other) | {"seconds": None}, each.label


def test_every_experiment_runs_in_parts_and_is_drawn(config: dict[str, Any], data: Path, tmp_path: Path) -> None:
    pathway = {"n_layers": 3, "cross_frame": [0, 1], "video_to_question": [1], "question_to_last": [2]}
    experiments = [
        "accuracy",
        {"name": "answer_trace", "samples": "all"},
        {"name": "attention_map", "words": ["last"]},
        {"name": "attribution", "heads": True, "verify": 6},
        FLOW,
        {"name": "generation", "anchors": [0, 2, 4], "max_new_tokens": 6},
        {"name": "logit_lens", "top": 1, "keywords": ["red"]},
        {"name": "patch_map", "answers": ["A", "B"]},
        {"name": "pathway", "pathway": pathway, "seeds": 1},
        "segment_attention",
        {"name": "stress", "pathway": pathway, "perturbations": ["noise"], "severities": [1]},
    ]
    elsewhere = {"probe"}  # nobody learns from so few questions: test_probe.py
    assert len(experiments) == len(in_runs()) - len(elsewhere), "a new experiment belongs here, too"
    found = vl.run(config | {"experiments": experiments, "figures": True}, tmp_path, progress=False)
    for label, each in found.summary["experiments"].items():
        assert each["undrawn"] is None and each["answered"] == N, (label, each)
        assert (tmp_path / "results" / label / "figure.png").stat().st_size > 5000
        assert found.result(label).to_dataframe().equals(found.result(label).table)
    says_what_a_call_says(found, vl.HookedVideoTransformer.from_pretrained(config["model"]), data)
    page = (tmp_path / "results" / "report.html").read_text()
    assert all(escape(each.title) in page for name, each in in_runs().items() if name not in elsewhere)
    assert page.count("<section ") == len(experiments) and "Not drawn" not in page and 'src="http' not in page
    before = files(tmp_path)
    shutil.rmtree(tmp_path / "results")
    (tmp_path / "parts" / "pathway" / "00000.part").unlink()
    vl.run(config | {"experiments": experiments, "figures": True}, tmp_path, progress=False)
    assert {name: file[2] for name, file in files(tmp_path).items()} == {name: file[2] for name, file in before.items()}


def test_the_command(
    config: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = written(tmp_path, config), tmp_path / "out"
    assert main(["run", path, "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert captured.out.rstrip().endswith(str(out / "results")) and "3 questions were asked" in captured.out
    assert "%|" not in captured.err and "\r" not in captured.err, "no bars where there is no terminal"
    before = files(out)
    monkeypatch.setattr(vl.HookedVideoTransformer, "from_pretrained", None)  # a finished run loads no model
    assert main(["run", path, "--out", str(out)]) == 0
    assert f"the run in {out} is finished" in capsys.readouterr().err and files(out) == before
    assert main(["run", str(tmp_path / "nowhere.yaml"), "--out", str(out)]) == 2


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = Path(__file__).parent.parent / "docs" / "run.yaml"
    assert read_config(example).model["name"] == "shapes"
    content = yaml.safe_load(example.read_text())
    content["dataset"]["n"], content["figures"] = 2, False
    monkeypatch.setenv("VIDEOLENS_CACHE", str(tmp_path / "clips"))
    found = vl.run(content, tmp_path / "out", progress=False)
    assert found.labels == [each["name"] for each in content["experiments"]] and found.errors.empty


# -- directories ------------------------------------------------------------------------------------------------------


def test_a_directory_belongs_to_one_run(config: dict[str, Any], checkpoint: Path, data: Path, tmp_path: Path) -> None:
    model, questions = tmp_path / "model", tmp_path / "data"
    shutil.copytree(checkpoint, model)
    shutil.copytree(data, questions)
    config |= {"model": str(model), "dataset": str(questions)}
    out = tmp_path / "out"
    vl.run(config, out, progress=False)
    before = files(out)

    def refused(config: dict[str, Any], message: str) -> None:
        with pytest.raises(vl.VideolensError, match=message):
            vl.run(config, out, progress=False)
        assert files(out) == before

    refused(config | {"chunk": 3}, r"another config \(chunk: 2 there, 3 here\)")
    other = [FLOW | {"window": 3}]
    refused(config | {"experiments": other}, r"another config \(experiments\[0\].window: 1 there, 3 here\)")
    listing = next((questions / "json").glob("*.json"))
    text = listing.read_text()
    entries = json.loads(text)
    entries[1]["question"] += "?"
    listing.write_text(json.dumps(entries))
    refused(config, rf"questions are not those .*\(colour / {entries[1]['id']} has changed\)")
    listing.write_text(text)
    clip = next((questions / "video").rglob("*00002.mp4"))
    clip.write_bytes(clip.read_bytes() + b"\0")
    refused(config, r"questions are not those .*00002 has changed")
    clip.write_bytes(clip.read_bytes()[:-1])
    assert vl.run(config, out, progress=False).labels == ["flow"]
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    refused(config, r"the model .* is not the one .*\(model.safetensors: '\w{12}…' there, '\w{12}…' here\)")
    shutil.copy(checkpoint / "model.safetensors", model)
    manifest = json.loads((out / "run.json").read_text())
    manifest["identity"]["versions"]["torch"] = "1.0"
    (out / "run.json").write_text(json.dumps(manifest))
    before = files(out)
    refused(config, r"begun with other versions \(torch: '1.0' there")


def test_what_is_no_run_is_left_alone(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    for name in ("config.yaml", "parts", "anything.txt"):
        (tmp_path / "notes" / name).write_text("mine")
        with pytest.raises(vl.VideolensError, match=rf"notes holds something else than a run \({name}\)"):
            vl.run(config, tmp_path / "notes", progress=False)
        assert (tmp_path / "notes" / name).read_text() == "mine"
        (tmp_path / "notes" / name).unlink()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(vl.VideolensError, match="file is a file"):
        vl.run(config, tmp_path / "file", progress=False)
    with pytest.raises(vl.VideolensError, match="holds no run"):
        vl.Run.load(tmp_path / "notes")
    assert vl.run(config, tmp_path / "notes", progress=False).labels == ["flow"], "an empty directory will do"


def test_one_process_at_a_time(config: dict[str, Any], tmp_path: Path) -> None:
    with (
        RunDirectory(tmp_path / "out"),
        pytest.raises(vl.VideolensError, match=r"out is in use by process \d+ on .*: wait for it"),
    ):
        vl.run(config, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()
    assert vl.run(config, tmp_path / "out", progress=False).labels == ["flow"]


def test_parts_are_checked_when_a_run_goes_on(config: dict[str, Any], tmp_path: Path) -> None:
    out, said = tmp_path / "out", []
    vl.run(config, out, progress=False)
    before = {name: file[2] for name, file in files(out).items()}
    first, second = (out / "parts" / "flow" / f"0000{i}.part" for i in range(2))
    whole = first.read_bytes()
    other = BytesIO()
    pd.DataFrame({"a": [1]}).to_parquet(other)
    for content in (whole[:-100], b"", whole[:-1], whole + b" ", other.getvalue()):
        shutil.rmtree(out / "results")
        first.write_bytes(content)
        with pytest.raises(vl.VideolensError, match="is not finished"):
            vl.Run.load(out)
        vl.run(config, out, progress=False, say=said.append)
        assert "00000.part is damaged" in said[-2] and "1 of 2 parts are there" in said[-1]
        assert {name: file[2] for name, file in files(out).items()} == before
    shutil.rmtree(out / "results")
    shutil.copy(second, first)
    with pytest.raises(vl.VideolensError, match=r"00000.part is a part of something else: its index is 1, expected 0"):
        vl.run(config, out, progress=False)


def test_no_flipped_bit_of_a_part_is_read_as_other_content(config: dict[str, Any], tmp_path: Path) -> None:
    run = vl.run(config, tmp_path / "out", progress=False)
    identity = json.loads((run.path / "run.json").read_text())["identity"]
    questions = [(each["task"], each["id"]) for each in identity["dataset"]["questions"]]
    draw, size = random.Random(7), config["chunk"]
    for index, path in enumerate(sorted((run.path / "parts" / "flow").glob("*.part"))):
        chunk = Chunk(digest(identity), "flow", index, tuple(questions[index * size : (index + 1) * size]))
        read_part(path, chunk)
        whole = path.read_bytes()
        for _ in range(1200):
            bit = draw.randrange(8 * len(whole))
            flipped = bytearray(whole)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            with pytest.raises(DamagedPartError):
                read_part(path, chunk)


# -- bad clips --------------------------------------------------------------------------------------------------------


def test_a_bad_clip_is_recorded_and_the_run_goes_on(
    config: dict[str, Any], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = tmp_path / "data"
    shutil.copytree(data, questions)
    clips = sorted((questions / "video").rglob("*.mp4"))
    clips[1].write_text("no video\n" * 100)
    config |= {"dataset": str(questions), "experiments": [FLOW, "accuracy"]}
    assert main(["run", written(tmp_path, config), "--out", str(tmp_path / "out")]) == 0
    found, told = vl.Run.load(tmp_path / "out"), capsys.readouterr().out
    bad = clips[1].stem
    assert found.errors["experiment"].tolist() == ["flow", "accuracy"] and set(found.errors["question"]) == {bad}
    assert set(found.errors["error"]) == {"VideoError"} and clips[1].name in found.errors["message"][0]
    assert f"- colour / {bad}: VideoError: " in told and "| flow | 3 | 2 | 0 | 1 |" in told
    flow = found.result("flow")
    assert flow.n == 2 and flow.settings.n_asked == 3
    assert (
        [skip.question for skip in flow.settings.skipped]
        == [bad]
        == [skip.question for skip in found.result("accuracy").settings[0].skipped]
    )
    # nothing but bad clips: the run ends, says so, and says so again
    for clip in clips:
        clip.write_text("no video\n" * 100)
    for _ in range(2):
        assert main(["run", written(tmp_path, config), "--out", str(tmp_path / "worse")]) == 2
        said = capsys.readouterr().err
        assert "no experiment has a result: flow: nothing but errors, 3 of 3 questions: " in said
    assert "**flow has no result**" in (tmp_path / "worse" / "results" / "summary.md").read_text()


def test_an_experiment_without_a_result_does_not_take_the_others_along(
    config: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    listing = next((data / "json").glob("*.json"))
    questions = tmp_path / "data"
    shutil.copytree(data, questions)
    entries = [entry | {"video": f"missing-{entry['video']}"} for entry in json.loads(listing.read_text())[:1]]
    (questions / "json" / listing.name).write_text(json.dumps(json.loads(listing.read_text())[1:] + entries))
    config |= {"dataset": {"name": str(questions), "missing": "report"}}
    config |= {"experiments": [FLOW | {"label": "all"}, FLOW | {"label": "none", "samples": "correct"}]}
    path = written(tmp_path, config)
    with pytest.warns(UserWarning):
        status = main(["run", path, "--out", str(tmp_path / "out")])
    found = vl.Run.load(tmp_path / "out")
    assert [each["question"] for each in found.summary["missing"]] == [entries[0]["id"]]
    assert found.summary["questions"] == N - 1 and "1 more have no video" in str(found)
    assert not found.result("all").table["correct"].any(), "this model gets both wrong"
    assert status == 1 and found.labels == ["all"] and found.without == ["none"]
    assert "**none has no result**: none of the 2 questions is left with samples='correct'" in str(found)
    assert "- 2 × the whole question: answered wrongly" in str(found)
    with pytest.raises(vl.VideolensError, match="'none' has no result: none of the 2 questions"):
        found.result("none")


def test_directories_that_somebody_changed(config: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    vl.run(config, out, progress=False)
    before, summary, manifest = files(out), out / "results" / "summary.json", (out / "run.json").read_text()

    summary.write_text("{")
    with pytest.raises(vl.VideolensError, match=r"summary.json cannot be read .* take .*results away"):
        vl.run(config, out, progress=False)
    summary.unlink()
    with pytest.raises(vl.VideolensError, match=r"results is there without its summary.json: .* take it away"):
        vl.run(config, out, progress=False)
    shutil.rmtree(out / "results")
    vl.run(config, out, progress=False)
    assert {name: one[2] for name, one in files(out).items()} == {name: one[2] for name, one in before.items()}

    for broken, message in (
        ({"format": 1}, "'identity' is missing"),
        (json.loads(manifest) | {"format": 99}, "not the description of a run .*format: .*got 99"),
        (json.loads(manifest) | {"identity": []}, "not the description of a run"),
        (json.loads(manifest) | {"identity": {}}, "'identity.config' is missing"),
        ({name: value for name, value in json.loads(manifest).items() if name != "threads"}, "'threads' is missing"),
    ):
        (out / "run.json").write_text(json.dumps(broken))
        with pytest.raises(vl.VideolensError, match=message):
            vl.run(config, out, progress=False)


def test_what_cannot_be_drawn_is_still_there(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figure and section fail apart from each other, and neither takes the result along."""
    lost = {"name": "attention_map", "words": ["zebra"]}  # which no question has
    config |= {"experiments": [FLOW | {"label": "flow"}, FLOW | {"label": "again"}, lost], "figures": True}

    def broken(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("no <ink>")

    with monkeypatch.context() as patched:
        patched.setattr(in_runs()["flow"].module("section"), "section", broken)
        found = vl.run(config, tmp_path / "section", progress=False)
    page = (tmp_path / "section" / "results" / "report.html").read_text()
    assert found.summary["experiments"]["again"]["undrawn"] == "section: RuntimeError: no <ink>"
    assert page.count("Not drawn: section: RuntimeError: no &lt;ink&gt;") == 2 and "no <ink>" not in page
    assert "No result: no question has 'zebra'" in page.replace("&#39;", "'") and "the question has no word" in page
    assert "Where it flows (again)" in page and "again could not be drawn: section" in str(found)
    assert found.result("flow").n == N and (tmp_path / "section" / "results" / "flow" / "figure.png").is_file()
    with monkeypatch.context() as patched:
        patched.setattr(vl.FlowMap, "figure", broken)
        found = vl.run(config, tmp_path / "figure", progress=False)
    assert "figure: RuntimeError" in found.summary["experiments"]["flow"]["undrawn"]
    assert found.result("flow").n == N and not (tmp_path / "figure" / "results" / "flow" / "figure.png").exists()


def test_a_run_of_an_older_version(config: dict[str, Any], tmp_path: Path) -> None:
    """Its parts hold neither costs nor pictures: finished, it is read; unfinished, it is not gone on with."""
    out = tmp_path / "out"
    vl.run(config, out, progress=False)
    manifest = out / "run.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 1}))
    assert vl.run(config, out, progress=False).labels == ["flow"]
    shutil.rmtree(out / "results")
    with pytest.raises(vl.VideolensError, match=r"out was begun by an older version .* not finished"):
        vl.run(config, out, progress=False)


def test_pictures_are_as_many_and_as_large_as_the_experiment_says(config: dict[str, Any], tmp_path: Path) -> None:
    asked = {"name": "attention_map", "words": ["last"], "heads": "mean"}
    listed = [asked | {"pictures": 1}, asked | {"pictures": 0, "label": "none"}, "logit_lens"]
    found = vl.run(config | {"experiments": listed}, tmp_path / "out", progress=False).results
    (_, one), (_, none), (_, lens) = found.items()
    assert one.clips["question"].nunique() == 1 and len(none.clips) == 0
    made = vl.logit_lens(
        vl.HookedVideoTransformer.from_pretrained(config["model"]), vl.load_dataset(config["dataset"]), progress=False
    )
    pd.testing.assert_frame_equal(lens.clips, made.clips)


def test_a_full_disk_is_said_with_the_file(tmp_path: Path) -> None:
    (tmp_path / f"{LEFTOVER}part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_atomic(tmp_path / "part", b"x" * 100)
    assert caught.value.filename == str(tmp_path / "part")
    assert not (tmp_path / "part").exists()
