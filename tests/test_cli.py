"""The command line: every command does what it says on a tiny checkpoint, and bad input is one clear line and exit
code 2."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers.report import letter_checkpoint

import videolens as vl
from videolens.__main__ import main, parser
from videolens.commands import experiment as experiment_command
from videolens.experiments import in_runs
from videolens.experiments.accuracy.result import Accuracy
from videolens.experiments.claims.result import Claims
from videolens.runs.config import read_config


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return letter_checkpoint(folder / "tuned", seed=1), letter_checkpoint(folder / "image", seed=2)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips are written below the tests' own folder, once for all of them."""
    monkeypatch.setenv("VIDEOLENS_CACHE", str(tmp_path_factory.getbasetemp() / "clips"))


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    frames = torch.randint(0, 256, (8, 16, 16, 3), dtype=torch.uint8)
    return vl.Video.from_array(frames, fps=4.0).write(tmp_path / "clip.mp4")


COMMANDS = ("demo", "flow", "explore", "accuracy", "run", "plan", "check", "models", "datasets", "data")
ASK = ["--question", "Which way does the red ball move?", "--n-frames", "3"]
OPTIONS = ["--option", "left", "--option", "right"]


def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ([], ["data", "shapes"], *([name] for name in (*COMMANDS, *in_runs(), "logit-lens"))):
        with pytest.raises(SystemExit) as ended:
            main([*command, "--help"])
        assert ended.value.code == 0 and "usage: videolens" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0 and vl.__version__ in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["flwo"])
    assert ended.value.code == 2


def helps() -> dict[str, str]:
    """The help of every command, by its name."""
    [known] = [each for each in parser()._actions if each.choices]
    found = {name: command.format_help() for name, command in known.choices.items()}
    [kinds] = [each for each in known.choices["data"]._actions if each.choices]
    return found | {f"data {name}": command.format_help() for name, command in kinds.choices.items()}


def test_every_help_has_an_example_that_parses() -> None:
    for name, said in helps().items():
        _, head, example = said.partition("\nexample:\n")
        assert head, f"videolens {name} --help has no example"
        program, *words = shlex.split(example.replace("\\\n", " "))
        assert program == "videolens"
        assert callable(parser().parse_args(words).run)
        assert words[0] in (name.split()[0], *_aliases(name)), "of another command"


def _aliases(name: str) -> list[str]:
    each = in_runs().get(name.replace("-", "_")) or next((e for e in in_runs().values() if e.short == name), None)
    return [] if each is None else [each.name, each.name.replace("_", "-"), str(each.short)]


def test_no_help_shows_how_it_was_escaped() -> None:
    for name, said in {"": parser().format_help(), **helps()}.items():
        assert "%%" not in said and "%(" not in said, f"videolens {name} --help"


def test_examples_of_experiments_name_the_options_that_they_need(tmp_path: Path) -> None:
    """As a run reads them: nothing is missing, and every option is one that the experiment takes."""
    for name in in_runs():
        if name in ("flow", "accuracy"):
            continue
        words = shlex.split(helps()[name].partition("\nexample:\n")[2].replace("\\\n", " "))[1:]
        options = parser().parse_args(words)
        settings = dict(experiment_command.option(text) for text in options.set)
        dataset = {"name": options.dataset, "tasks": options.task, "n": options.n}
        config = read_config({"model": options.model, "dataset": dataset, "experiments": [settings | {"name": name}]})
        assert config.experiments[0].name == name


def test_help_needs_no_heavy_package() -> None:
    heavy = "print({'torch', 'transformers'} & set(sys.modules))"
    probe = f"import sys; from videolens.__main__ import parser; parser(); {heavy}"
    found = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
    assert parser().parse_args(["demo"]).n == 20


def test_data_shapes_writes_tvbench_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = ["--task", "moving direction", "--task", "colour"]
    assert main(["data", "shapes", str(tmp_path), "--n", "2", "--seed", "5", *tasks]) == 0
    assert "2 questions of each of 2 tasks" in capsys.readouterr().out
    for task in ("moving_direction", "colour"):
        entries = json.loads((tmp_path / "json" / f"{task}.json").read_text())
        assert len(entries) == 2 and {"video", "question", "candidates", "answer"} <= set(entries[0])
        assert all((tmp_path / "video" / task / entry["video"]).stat().st_size > 500 for entry in entries)
    assert len(vl.load_dataset(tmp_path, task="colour", n=2)) == 2


def test_flow_maps_a_clip_of_ones_own(
    checkpoints: tuple[Path, Path], clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    request = ["flow", "--model", str(checkpoints[0]), "--video", str(clip), *ASK, "--out", str(out)]
    assert main([*request, *OPTIONS, "--answer", "left"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("answer: (") and str(out / "report.html") in said
    flow = vl.FlowMap.load(out)
    assert flow.routes == list(vl.ROUTES) and flow.n == 1 and flow.settings.samples == "all"
    assert (", which is right" in said) == bool(flow.table["correct"].iloc[0])
    table = pd.read_csv(out / "flow.csv", dtype={"answer": str, "answer_knockout": str})
    assert len(table) == len(flow.table) == 11 * 3
    assert {path.name for path in out.glob("*.png")} >= {"flow-heat-map.png", "flow-routes.png", "attention.png"}
    page = (out / "report.html").read_text()
    assert "Which way does the red ball move?" in page and 'src="http' not in page
    assert main([*request, *OPTIONS]) == 2, "a second run does not overwrite the first"
    assert "already holds a flow map" in capsys.readouterr().err
    # without an answer the model's own choice is followed, and takes the place of the true option
    assert main([*request, *OPTIONS, "--overwrite"]) == 0
    assert "which is" not in capsys.readouterr().out
    assert vl.FlowMap.load(out).table["correct"].all()


def test_flow_tells_its_cost_first(
    checkpoints: tuple[Path, Path], clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    request = ["flow", "--model", str(checkpoints[0]), "--video", str(clip), *ASK, *OPTIONS, "--out", str(out)]
    assert main([*request, "--plan"]) == 0
    planned = capsys.readouterr().out
    assert planned.startswith("33 interventions on ") and "forwards instead of 34" in planned
    assert not out.exists(), "a plan writes nothing"
    assert main([*request, "--verify", "--max-memory", "64M"]) == 0
    assert planned.splitlines()[0] in capsys.readouterr().err
    made = vl.FlowMap.load(out).settings
    assert made.engine == "exact" and made.forwards < made.full_forwards == 34 and made.verified < 1e-4
    assert "forwards instead of 34; tracing took" in (out / "report.html").read_text()
    assert main([*request, "--engine", "full", "--overwrite"]) == 0
    assert "forwards instead" not in capsys.readouterr().err
    assert vl.FlowMap.load(out).settings.forwards == 34
    assert main([*request, "--max-memory", "1K", "--overwrite"]) == 2
    assert "max_memory of 1,024 bytes is too small" in capsys.readouterr().err
    for size in ("lots", "1T", "infM", ""):
        with pytest.raises(SystemExit) as ended:
            main([*request, "--max-memory", size])
        assert ended.value.code == 2 and "is no size" in capsys.readouterr().err


def test_flow_without_options_traces_the_routes_there_are(
    checkpoints: tuple[Path, Path], clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    part = ["--start", "0.5", "--end", "1.5", "--window", "1", "--completion", "The red ball moves"]
    assert main(["flow", "--model", str(checkpoints[0]), "--video", str(clip), *ASK, *part, "--out", str(out)]) == 0
    flow = vl.FlowMap.load(out)
    assert "true option -> last" not in flow.routes and {"cross-frame", "stem -> last"} <= set(flow.routes)
    assert flow.settings.window == 1
    assert "writes" in (out / "report.html").read_text()


def test_accuracy_prints_a_table(
    checkpoints: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = ["--model", str(checkpoints[0]), "--model", str(checkpoints[1])]
    tasks = ["--task", "moving direction", "--task", "colour"]
    assert main(["accuracy", *models, *tasks, "--n", "4", "--seed", "3", "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| task | n | chance | ") and lines[2].startswith("| moving direction | 4 | 25 % | ")
    assert lines[3].startswith("| colour | 4 | 25 % | ") and "–" in lines[3]
    assert "Split test, seed 3." in lines[-1]
    result = Accuracy.load(tmp_path)
    assert len(result.models) == 2 and result.conditions == ["as is", "reversed"]


def test_every_experiment_is_a_command(
    checkpoints: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run with one experiment, under its name with "_" or with "-"."""
    known = parser()._subparsers._group_actions[0].choices
    short = {each.short for each in in_runs().values()} - {None}
    assert {"patch", "lens", "attention"} <= short
    assert {*COMMANDS, *in_runs(), *(name.replace("_", "-") for name in in_runs()), *short} == set(known)
    assert all(known[each.short] is known[name] for name, each in in_runs().items() if each.short)
    asked = ["--model", str(checkpoints[0]), "--dataset", "shapes", "--task", "colour", "--split", "validation"]
    request = ["logit-lens", *asked, "--n", "2", "--set", "top=2", "--set", "keywords=[red, blue]"]
    assert main([*request, "--out", str(tmp_path / "lens")]) == 0
    captured = capsys.readouterr()
    assert captured.out.rstrip().endswith(str(tmp_path / "lens" / "results"))
    assert "| logit_lens | 2 | 2 | 0 | 0 |" in captured.out
    found = vl.Run.load(tmp_path / "lens")
    assert found.summary["dataset"]["split"] == "validation" and found.summary["dataset"]["tasks"] == ["colour"]
    assert found.result().n == 2 and found.result().settings.top == 2
    assert main([*request, "--out", str(tmp_path / "lens")]) == 0, "the same command goes on, here with nothing"
    assert "is finished" in capsys.readouterr().err
    assert main(["logit_lens", *request[1:], "--set", "top=3", "--out", str(tmp_path / "lens")]) == 2
    assert "another config (experiments[0].top: 2 there, 3 here)" in capsys.readouterr().err
    for option, message in (
        ("tpo=2", "unknown option of the experiment 'logit_lens' 'tpo'; did you mean 'top'"),
        ("top=two", "experiments[0].top: it takes a whole number, got 'two'"),
        ("top", "--set 'top': give OPTION=VALUE"),
        ("top=[", "--set 'top=[': the value is not YAML"),
        ("norm=2026-01-01", "something else than text, numbers"),
    ):
        assert main([*request, "--set", option, "--out", str(tmp_path / "other")]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_demo_writes_tables_figures_and_a_page(
    checkpoints: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    models = ["--model", str(checkpoints[0]), "--base", str(checkpoints[1])]
    request = ["demo", "--out", str(out), "--n", "4", "--n-accuracy", "4", *models]
    assert main(request) == 0
    captured = capsys.readouterr()
    assert captured.out.strip() == str(out / "report.html") and "flow map of" in captured.err
    table = pd.read_parquet(out / "flow.parquet")
    columns = ["model", "question", "task", "route", "layer", "p_base", "p_knockout", "change_percent"]
    assert list(table.columns[:8]) == columns and table["model"].nunique() == 2
    assert len(pd.read_csv(out / "flow.csv", dtype={"answer": str, "answer_knockout": str})) == len(table)
    base = table[table["model"] == str(checkpoints[1])]
    assert base.groupby("task")["question"].nunique().to_dict() == dict.fromkeys(base["task"].unique(), 4)
    pictures = {path.stem for path in out.glob("*.png")}
    assert len(pictures) == 5 + 4 + 5
    assert {"pathway", "stress", "answer-trace", "logit-lens", "words-on-frames"} < pictures
    assert vl.Stress.load(out / "stress").n == 5 * 2 and not (out / "without-hints").exists()
    along = vl.PathwayAccuracy.load(out / "pathway")
    assert along.n == 20 and (out / "pathway.html").stat().st_size < 5 * 2**20
    assert vl.FlowMap.load(out / "maps" / "tuned").settings.samples == "correct"
    assert vl.FlowMap.load(out / "maps" / "image").settings.samples == "all"
    claims = Claims.load(out)
    page = (out / "report.html").read_text()
    assert "forwards instead of 34" in page and "2 of these questions in tuned" in page
    assert claims.sentence("3").split(":")[0] in page and 'src="http' not in page
    assert Accuracy.load(out / "accuracy").conditions == ["as is", "reversed", "shuffled", "blank"]
    request[4] = "3"
    assert main(request) == 2, "another demonstration does not overwrite this one"
    assert "other settings" in capsys.readouterr().err


def test_bad_input_is_one_clear_line_and_exit_code_two(
    checkpoints: tuple[Path, Path], clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video\n" * 100)
    model = ["--model", str(checkpoints[0])]
    flow = ["flow", *model, *ASK, "--out", str(tmp_path / "out"), *OPTIONS]
    for arguments, message in (
        ([*flow, "--video", "nowhere.mp4"], "no such file"),
        ([*flow, "--video", str(tmp_path / "empty.mp4")], "empty"),
        ([*flow, "--video", str(tmp_path / "text.mp4")], "text.mp4"),
        ([*flow, "--video", str(clip), "--answer", "up"], "not among the options"),
        ([*flow, "--video", str(clip), "--start", "90"], "outside"),
        ([*flow, "--video", str(clip), "--window", "9"], "window of 9"),
        (["flow", "--model", "shape", *ASK, *OPTIONS, "--video", str(clip)], "unknown model 'shape'"),
        (["accuracy", *model, "--n", "2", "--task", "moving"], "unknown task 'moving'"),
        (["accuracy", *model, "--n", "0"], "n = 0"),
        (["accuracy", *model, "--n", "2", "--condition", "backwards"], "unknown condition 'backwards'"),
        (["data", "shapes", str(tmp_path / "empty.mp4"), "--n", "1"], "empty.mp4"),
        (["data", "shapes", str(tmp_path), "--seed", "-1"], "seed"),
        (["demo", "--out", str(tmp_path / "text.mp4")], "is a file"),
        (["demo", "--out", str(tmp_path / "out"), "--n", "0"], "n = 0"),
        (["demo", "--out", str(tmp_path / "out"), "--model", "shape"], "unknown model 'shape'"),
    ):
        assert main(arguments) == 2, arguments
        captured = capsys.readouterr()
        lines = captured.err.strip().splitlines()
        assert lines[-1].startswith("videolens: error: ") and message in lines[-1], captured.err
        assert "Traceback" not in captured.err and len([line for line in lines if "error" in line]) == 1
    assert not (tmp_path / "out").exists(), "nothing is written for a request that fails"
