"""What a run will take is told before there is a weight: the bytes that are then loaded, the forwards then counted."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.families import CASES, each_family

import videolens as vl
from videolens.__main__ import main
from videolens.engine.foreseeing import Machine, foresee
from videolens.errors import VideolensError
from videolens.experiments import in_runs
from videolens.experiments.flow.plan import route_knockouts
from videolens.model.running import Running
from videolens.model.shape import model_shape, prompt_shape, weight_bytes
from videolens.runs.foreseen import foresee_run

GIB = 2**30
OPEN = {"n_layers": 12, "cross_frame": [2, 3], "video_to_question": [4, 5], "question_to_last": [7, 8]}
LLAVA_13B: dict[str, Any] = {
    "model_type": "llava_next_video",
    "architectures": ["LlavaNextVideoForConditionalGeneration"],
    "dtype": "float16",
    "video_token_index": 32000,
    "image_token_index": 32001,
    "image_grid_pinpoints": [[336, 336]],
    "spatial_pool_mode": "average",
    "spatial_pool_stride": 2,
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "text_config": {
        "model_type": "llama",
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
        "num_key_value_heads": 40,
        "vocab_size": 32064,
        "max_position_embeddings": 4096,
    },
    "vision_config": {
        "model_type": "clip_vision_model",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
        "projection_dim": 768,
    },
}


def config(*experiments: Any, **model: Any) -> dict[str, Any]:
    dataset = {"name": "shapes", "tasks": ["moving direction"], "n": 3}
    return {"model": {"name": "shapes"} | model, "dataset": dataset, "experiments": list(experiments)}


@pytest.fixture(scope="module")
def bundled() -> vl.HookedVideoTransformer:
    return vl.HookedVideoTransformer.from_pretrained("shapes")


@pytest.fixture(scope="module")
def shape() -> vl.HookedVideoTransformer:
    return model_shape("shapes")


@pytest.fixture(scope="module")
def question() -> vl.Question:
    return vl.load_dataset("shapes", split="test", task="object count", n=1)[0]


@pytest.fixture
def of_13b(tmp_path: Path) -> Path:
    """A directory with config.json and nothing else."""
    (tmp_path / "13b").mkdir()
    (tmp_path / "13b" / "config.json").write_text(json.dumps(LLAVA_13B))
    return tmp_path / "13b"


@each_family
def test_a_shape_has_the_weights_of_the_model(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    for folder in ("whole", "config"):
        (tmp_path / folder).mkdir()
    case.write(tmp_path / "whole", case.plain, bare=case.bare)
    for file in (tmp_path / "whole").iterdir():
        if file.suffix != ".safetensors" and "index" not in file.name:
            shutil.copy(file, tmp_path / "config")
    loaded = vl.HookedVideoTransformer.from_pretrained(tmp_path / "whole")
    told = model_shape(tmp_path / "config", dtype=loaded.cfg.dtype)
    assert all(each.is_meta for each in told.parameters())
    shapes = [{n: (tuple(p.shape), p.dtype) for n, p in one.named_parameters()} for one in (told, loaded)]
    assert shapes[0] == shapes[1]
    assert weight_bytes(told) == weight_bytes(loaded) > 0
    assert told.cfg.n_layers == loaded.cfg.n_layers and told.cfg.n_ctx == loaded.cfg.n_ctx


def test_a_shape_of_a_prompt_is_the_prompt_without_its_numbers(
    bundled: vl.HookedVideoTransformer, shape: vl.HookedVideoTransformer, question: vl.Question
) -> None:
    for one in (question, question.open_ended()):
        made, told = bundled.prompt(one), prompt_shape(shape, one)
        assert torch.equal(made.input_ids, told.input_ids) and told.residual.is_meta
        assert made.residual.shape == told.residual.shape and made.residual.dtype == told.residual.dtype
        for field in ("role", "option", "frame", "row", "column"):
            assert torch.equal(getattr(made.tokens, field), getattr(told.tokens, field))
        assert made.option_tokens == told.option_tokens and made.answer_token == told.answer_token
    assert weight_bytes(shape) == weight_bytes(bundled)


def test_a_sweep_costs_what_was_foreseen(
    bundled: vl.HookedVideoTransformer, shape: vl.HookedVideoTransformer, question: vl.Question
) -> None:
    """Also where memory is short: fewer side by side, several walks, no room for the base."""
    prompt, told = bundled.prompt(question), prompt_shape(shape, question)
    cuts, _, _ = route_knockouts(prompt, ["cross-frame", "video -> question", "question -> last"], 5, 12)
    whole = foresee(shape, told, cuts, machine=Machine(GIB))
    assert whole.peak_bytes is not None
    for memory in (GIB, whole.peak_bytes, whole.peak_bytes // 7):
        for with_base in (False, True):
            base = vl.engine.base(bundled, prompt, max_memory=memory) if with_base else None
            found = vl.sweep(bundled, prompt, cuts, max_memory=memory, base=base)
            assert found.plan is not None
            expected = foresee(shape, told, cuts, with_base=with_base, machine=Machine(memory, torch.device("cpu")))
            assert expected.forwards == pytest.approx(found.forwards + with_base, rel=1e-12)
            assert (expected.peak_bytes, expected.rounds) == (found.plan.peak_bytes, found.plan.rounds)
            assert expected.full_forwards == found.full_forwards
    assert foresee(shape, told, cuts, machine=Machine(whole.peak_bytes // 7)).rounds > 1
    assert foresee(shape, told, cuts, engine="full").forwards == len(cuts) + 1


def test_a_run_costs_what_was_foreseen(bundled: vl.HookedVideoTransformer) -> None:
    experiments = [
        {"name": "flow", "window": 5, "samples": "all"},
        {"name": "flow", "label": "halves", "style": "halves"},
    ]
    pathway = {"name": "pathway", "pathway": OPEN, "seeds": 1}
    told = foresee_run(config(*experiments, pathway), device_memory=4 * GIB, per_task=3)
    assert told.fits and told.n_questions == 3 and told.weight_bytes == weight_bytes(bundled)
    questions = vl.load_dataset("shapes", tasks=["moving direction"], n=3)
    assert told.n_pos == max(bundled.prompt(each).shape[1] for each in questions)
    by_label = {each.label: each.cost for each in told.experiments}
    flows = [vl.trace_flow(bundled, each, window=5, samples="all", progress=False).settings for each in questions]
    assert by_label["flow 1"].forwards == pytest.approx(max(each.forwards for each in flows))
    assert by_label["flow 1"].full_forwards == flows[0].full_forwards == 11 * 12 + 1
    made = vl.evaluate_pathway(bundled, questions[:1], OPEN, seeds=1, progress=False).settings
    alone = foresee_run(config(pathway), device_memory=4 * GIB).experiments[0].cost
    assert alone is not None and alone.forwards == pytest.approx(made.forwards)
    assert alone.full_forwards == made.full_forwards


def test_in_half_precision_what_is_repeated_is_counted_at_its_dearest(question: vl.Question) -> None:
    routes = ["video -> question", "question -> last"]
    given = {"name": "flow", "window": 3, "samples": "all", "routes": routes}
    model = vl.HookedVideoTransformer.from_pretrained("shapes", dtype="bfloat16")
    made = vl.trace_flow(model, question, window=3, samples="all", routes=routes, progress=False).settings
    experiment = in_runs()["flow"].experiment_class(model, **{k: v for k, v in given.items() if k != "name"})
    told = experiment.foresee(model.prompt(question), Machine(GIB))
    assert made.noise is not None, "some are repeated"
    assert made.forwards <= told.forwards < 2 * made.forwards


def test_experiments_without_a_sweep_run_as_often_as_was_foreseen(
    bundled: vl.HookedVideoTransformer, question: vl.Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []
    enter = Running.enter

    def counted(self: Running, input: Any, **how: Any) -> Any:
        ran.extend([1] * len(input))  # prompts side by side are a forward each
        return enter(self, input, **how)

    monkeypatch.setattr(Running, "enter", counted)
    prompt = bundled.prompt(question)
    options: dict[str, dict[str, Any]] = {
        "accuracy": {"conditions": ["as is", "blank"]},
        "answer_trace": {"interventions": {"cut": "cross-frame"}, "samples": "all"},
        "logit_lens": {"samples": "all"},
        "attention_map": {"words": ["last"], "samples": "correct"},
        "segment_attention": {},
    }
    for name, given in options.items():
        experiment = in_runs()[name].experiment_class(bundled, **given)
        told = experiment.foresee(prompt, Machine())
        ran.clear()
        assert experiment.ask(prompt, "one", "object count", lambda share: None).rows
        assert told is not None and told.forwards == told.full_forwards == len(ran), name


def test_thirteen_billion_parameters_are_planned_from_their_config(of_13b: Path) -> None:
    experiments = [{"name": "flow", "window": 9}, {"name": "accuracy"}, {"name": "patch_map"}]
    asked = config(*experiments, name="llava-hf/LLaVA-NeXT-Video-13B", dtype="bfloat16", device="cuda")
    large = foresee_run(asked, model=of_13b, device_memory=80 * GIB)
    # Llama, its embeddings and norms; CLIP; the projector: by hand
    d, mlp, n, vocab, v = 5120, 13824, 40, 32064, 1024
    llama = n * (4 * d * d + 3 * d * mlp + 2 * d) + 2 * vocab * d + d
    clip = 24 * (4 * (v * v + v) + 8 * v * v + 5 * v + 4 * v) + v + 577 * v + 3 * 14 * 14 * v + 4 * v
    assert large.n_parameters == pytest.approx(llama + clip + v * d + d * d + 2 * d, rel=1e-6)
    assert large.weight_bytes == 2 * large.n_parameters and large.device == "cuda" and large.dtype == "bfloat16"
    assert large.bytes_by_dtype["float32"] == 4 * large.n_parameters
    assert large.budget == (80 * GIB - large.weight_bytes) // 2
    assert large.n_video == 8 * 12 * 12 and large.n_pos > large.n_video + 30
    flow, accuracy, patching = large.experiments
    assert flow.cost is not None and flow.cost.full_forwards == 11 * 40 + 1
    assert 20 < flow.cost.forwards < 100 and flow.cost.peak_bytes and flow.cost.peak_bytes < large.budget
    assert accuracy.cost is not None and accuracy.cost.forwards == 1 and patching.cost is None
    assert large.fits and "no tokenizer lies beside config.json" in str(large)
    words = {"name": "logit_lens", "keywords": {"thing": ["bag"]}}
    part = foresee_run(config(words, "accuracy", name="owner/large"), model=of_13b, device_memory=80 * GIB)
    lens, counted = part.experiments
    assert lens.cost is None and "not made from config.json alone: the keyword 'bag'" in lens.reason
    assert counted.cost is not None and str(part).endswith("what is counted fits")
    small = foresee_run(asked, model=of_13b / "config.json", device_memory=24 * GIB)
    [problem] = small.problems
    assert not small.fits and re.search(r"the weights take 24\.\d GiB and the device has 24\.0 GiB", problem)
    tight = foresee_run(asked, model=of_13b, device_memory=large.weight_bytes + 2**20)
    assert not tight.fits and "give max_memory=" in tight.problems[0] and "flow" in tight.problems[0]


def test_the_command_tells_it(of_13b: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps(config({"name": "flow", "window": 5})))
    assert main(["plan", str(file), "--device-memory", "2GiB"]) == 0
    said = capsys.readouterr().out
    assert "float32 on cpu with 2.0 GiB" in said and "it fits" in said and re.search(r"flow +1\d\.\d +133 ", said)
    assert main(["plan", str(file), "--device-memory", "8M"]) == 1
    assert "it does not fit: the weights take" in (said := capsys.readouterr().out) and "--dtype bfloat16" in said
    file.write_text(json.dumps(config({"name": "flow"}, name="owner/large", device="cuda")))
    assert main(["plan", str(file), "--model", str(of_13b), "--device-memory", "80G"]) == 0
    capsys.readouterr()
    for arguments, message in (
        (["--device-memory", "80G"], "'owner/large' is not here, and nothing is downloaded for a plan"),
        (["--model", str(of_13b)], "'cuda'" if not torch.cuda.is_available() else ""),
        (["--model", str(file)], "is no config.json"),
        (["--model", str(of_13b), "--device", "gpu", "--device-memory", "80G"], "gpu"),
    ):
        if message:
            assert main(["plan", str(file), *arguments]) == 2
            assert message in capsys.readouterr().err


def test_what_cannot_be_planned_is_one_clear_error(of_13b: Path) -> None:
    def given(**more: Any) -> Path:
        (of_13b / "config.json").write_text(json.dumps(LLAVA_13B | more))
        return of_13b

    for more, message in (
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "llama"),
        (
            {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
            "describes quantised weights",
        ),
        ({"dtype": 16}, "says the dtype 16"),
    ):
        with pytest.raises(VideolensError, match=message):
            model_shape(given(**more))
    missing = config("accuracy") | {"dataset": {"name": "tvbench", "root": "nowhere", "n_frames": 16}}
    told = foresee_run(missing, device_memory=GIB)
    assert told.n_questions is None and told.n_video == 16 * 16 and "the data set cannot be read" in str(told)
    with pytest.raises(VideolensError, match="of the experiment 'flow' 'widow'; did you mean 'window'"):
        foresee_run(config({"name": "flow", "widow": 3}), device_memory=GIB)
