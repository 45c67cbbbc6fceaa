"""Every family is converted as its original runs: four ways to store it, its variants, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.checkpoints import STORAGES, rounded
from helpers.families import CASES, NEEDS, each_family

from videolens.errors import ModelError, VideolensError
from videolens.model import families
from videolens.model.transformer import HookedVideoTransformer

FILES = sorted(path for path in Path(families.__file__).parent.glob("*.py") if path.stem != "__init__")
MAX_LINES = 150
VARIANTS = [(name, what) for name, case in CASES.items() for what in case.variants]
SHAPES = [(name, *shape) for name, case in CASES.items() for shape in case.other_shapes]
CONFIGS = [(name, i) for name, case in CASES.items() for i, _ in enumerate(case.other_configs)]


def test_every_family_has_a_case() -> None:
    known = {path.stem for path in FILES if not path.stem.startswith("_")}
    assert known == set(CASES) | set(NEEDS), "a family has a file here and a case in tests/helpers/families"


@pytest.mark.parametrize("name", NEEDS)
def test_a_family_that_needs_another_package_is_tested_where_that_is(name) -> None:
    pytest.importorskip(NEEDS[name], reason=f"{name} is tested where this is installed: pip install {NEEDS[name]}")
    assert name in CASES


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_a_family_is_a_small_file(file) -> None:
    n = len(file.read_text().splitlines())
    assert n <= MAX_LINES, f"{file.name} has {n} lines: a family says only what differs"


@each_family
@pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES)
def test_parity(name, storage, tmp_path) -> None:
    case = CASES[name]
    case.write(tmp_path, case.plain, storage, bare=case.bare)
    ours = HookedVideoTransformer.from_pretrained(tmp_path, dtype=torch.float32)
    worst = case.prove(ours, rounded(case.plain, storage))
    assert {"logits", "residual", "pattern", "batch", "knockout"} <= set(worst)
    assert ("padded batch" in worst) == case.in_transformers


@pytest.mark.parametrize(("name", "what"), VARIANTS, ids=[" ".join(each) for each in VARIANTS])
def test_parity_of_variants(name, what, tmp_path) -> None:
    case, variant = CASES[name], CASES[name].variants[what]
    original = case.original(**variant.settings)
    case.write(tmp_path, original, layout=variant.layout, bare=case.bare, **variant.config)
    ours = HookedVideoTransformer.from_pretrained(tmp_path)
    assert (ours.unembed.weight is ours.frontend.embed.weight) == variant.tied
    normed = case.head_norms if variant.head_norms is None else variant.head_norms
    assert {block.attn.q_norm is not None for block in ours.blocks} == {normed}
    case.prove(ours, original, variant.shape, step=variant.step, words=variant.words)


@each_family
def test_a_proof_fails_where_a_weight_is_wrong(name) -> None:
    case, wrong = CASES[name], rounded(CASES[name].plain, STORAGES["fp32"])
    [weight] = [p for key, p in wrong.named_parameters() if key.endswith("layers.1.mlp.down_proj.weight")]
    with torch.no_grad():
        weight[3, 5] += 0.05
    with pytest.raises(AssertionError, match="differs by"):
        case.prove(case.ours, wrong)


@pytest.mark.parametrize(
    ("name", "frames", "height", "width"), SHAPES, ids=[f"{name} {n} × {h} × {w}" for name, n, h, w in SHAPES]
)
def test_clips_that_do_not_fit_are_refused(name, frames, height, width) -> None:
    shape = (frames, height, width)
    with pytest.raises(VideolensError, match=CASES[name].other_shapes[shape]):
        CASES[name].prompts(CASES[name].ours, shape)


@pytest.mark.parametrize(
    ("name", "i"), CONFIGS, ids=[f"{name} {CASES[name].other_configs[i][1]}" for name, i in CONFIGS]
)
def test_configs_that_say_something_else_are_refused(name, i, tmp_path) -> None:
    case = CASES[name]
    changes, said = case.other_configs[i]
    case.write(tmp_path, case.plain, **changes)
    with pytest.raises(ModelError, match=said):
        HookedVideoTransformer.from_pretrained(tmp_path)
