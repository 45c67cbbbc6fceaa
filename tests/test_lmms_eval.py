"""lmms-eval itself, asking the bundled model: its accuracy is `measure_accuracy`'s, and `evaluate_pathway`'s.

Needs lmms-eval (`pip install 'videolens[lmms-eval]'` into an environment of its own; docs/lmms_eval.md has the
command); without it all of this is skipped. The entry point is seen once videolens is installed there.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.templates import TEMPLATES

if importlib.util.find_spec("lmms_eval") is None:
    pytest.skip("lmms-eval is not installed: docs/lmms_eval.md says how it is", allow_module_level=True)

import datasets
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.models import get_model, list_available_models
from lmms_eval.tasks import TaskManager

import videolens as vl
from videolens.datasets.shapes import write_shapes
from videolens.errors import VideolensError

NAME, TASK, N = "shapes_moving_direction", "moving direction", 6
ASKED = {"pretrained": "shapes", "begin": "Best option:(", "instruction": "Only give the best option.", "device": "cpu"}
OPEN = {"n_layers": 12, "cross_frame": [2, 3], "video_to_question": [4, 5], "question_to_last": [7, 8]}


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder with clips and a task's files, in which lmms-eval is run."""
    folder = tmp_path_factory.mktemp("lmms")
    shutil.copytree(TEMPLATES / "lmms_eval", folder / "tasks")
    task = (folder / "tasks" / f"{NAME}.yaml").read_text()
    scored = task.replace("generate_until", "multiple_choice").replace(NAME, "scored").replace("generation_kwargs", "#")
    scored = scored.replace("process_results: !function utils.process_results", "doc_to_choice: [A, B, C, D]")
    scored = scored.replace("metric: accuracy", "metric: acc") + "target_delimiter: ''\n"
    (folder / "tasks" / "scored.yaml").write_text(scored)
    blind = task.replace("utils.doc_to_visual", "utils.nothing").replace(NAME, "blind")
    (folder / "tasks" / "blind.yaml").write_text(blind)
    with (folder / "tasks" / "utils.py").open("a") as file:
        file.write("\n\ndef nothing(doc):\n    return []\n")
    write_shapes(folder / "out" / "shapes", n=N, tasks=[TASK])
    (folder / "pathway.yaml").write_text(json.dumps(OPEN))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        yield folder


def evaluated(task: str = NAME, **given: Any) -> dict[str, float]:
    """What lmms-eval's evaluator gives for one task."""
    found = simple_evaluate(
        "videolens",
        model_args=",".join(f"{name}={value}" for name, value in (ASKED | given).items()),
        tasks=[task],
        task_manager=TaskManager(include_path="tasks"),
        log_samples=False,
        bootstrap_iters=0,
    )
    return {name.partition(",")[0]: value for name, value in found["results"][task].items()}


@pytest.fixture(scope="module")
def questions() -> list[vl.Question]:
    return vl.load_dataset(Path("out/shapes"), task=TASK)


@pytest.fixture(scope="module")
def own() -> vl.HookedVideoTransformer:
    return vl.HookedVideoTransformer.from_pretrained("shapes")


def test_lmms_eval_knows_the_model() -> None:
    assert "videolens" in list_available_models()
    assert get_model("videolens").__module__ == "videolens.evaluators.lmms_eval"


def test_accuracy_is_that_of_measure_accuracy(own: vl.HookedVideoTransformer, questions: list[vl.Question]) -> None:
    table = vl.measure_accuracy(own, questions).table
    assert len(table) == N and table["option_first"].all()
    assert evaluated()["accuracy"] == pytest.approx(table["correct"].mean())


def test_along_a_pathway_it_is_that_of_evaluate_pathway(
    own: vl.HookedVideoTransformer, questions: list[vl.Question]
) -> None:
    table = vl.evaluate_pathway(own, questions, OPEN, random=[]).table
    along = table[table["condition"] == "pathway"]
    expected = along["correct"].mean()
    assert expected < table[table["condition"] == "full"]["correct"].mean(), "or the pathway need not be attached"
    assert evaluated(pathway="pathway.yaml")["accuracy"] == pytest.approx(expected)
    assert evaluated(pathway="pathway.yaml", compiled=True)["accuracy"] == pytest.approx(expected)
    assert evaluated("scored", pathway="pathway.yaml")["acc"] == pytest.approx(expected)


def test_what_cannot_be_asked_is_one_clear_error() -> None:
    with pytest.raises(VideolensError, match="task blind, document 0: it comes with no video"):
        evaluated("blind")
    with pytest.raises(VideolensError, match=r"nowhere\.yaml cannot be read"):
        evaluated(pathway="nowhere.yaml")
    model = get_model("videolens")
    with pytest.raises(VideolensError, match="the argument 'pretrained' is missing"):
        model.create_from_arg_string("n_frames=8", {"batch_size": 1, "max_batch_size": None, "device": None})
    with pytest.raises(VideolensError, match="batch_size = 8: questions are asked one after the other"):
        model.create_from_arg_string("pretrained=shapes", {"batch_size": 8})
    one = model.create_from_arg_string("pretrained=shapes", {"batch_size": "1", "device": "cpu"})
    assert one.device.type == "cpu"
    with pytest.raises(VideolensError, match="a task of several rounds"):
        one.generate_until_multi_round([])
