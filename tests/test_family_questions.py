"""Every family's prompts: what the original's processor writes, what the original computes, and what cuts change."""

from __future__ import annotations

import pytest
import torch
from helpers.checkpoints import STORAGES, rounded
from helpers.clips import clip
from helpers.families import CASES, each_family

from videolens import Knockout, Question, Video, sweep
from videolens.prompt.known_templates import template_named

TEMPLATE = template_named("vicuna").with_system("")  # short: some decoders have room for few positions


@each_family
@pytest.mark.parametrize(("frames", "height", "width"), [(1, 64, 64), (2, 40, 70), (3, 40, 200)])
@torch.no_grad()
def test_a_question_is_what_the_original_processor_writes(name, frames, height, width) -> None:
    case, ours = CASES[name], CASES[name].ours
    film = torch.cat([clip(height, width, frames=4)] * 3)[: frames * case.step]
    question = Question(Video.from_array(film, fps=2.0), "What moves?", ["A ball", "A cube"], "A cube")
    prompt = ours.prompt(question, template=TEMPLATE)
    assert torch.equal(prompt.pixel_values[0], ours.pixels(question.video.frames))
    placeholder = ours.tokenizer.decode([case.placeholder])
    assert prompt.text.count(placeholder) == 1
    whole = prompt.text.replace(placeholder, case.written(prompt))
    assert prompt.input_ids[0].tolist() == ours.tokenizer(whole)["input_ids"]
    n_placed = int((prompt.input_ids == case.placeholder).sum())
    assert n_placed == whole.count(placeholder) == len(prompt.tokens["video | newline"])
    copy = rounded(case.plain, STORAGES["fp32"])
    wanted = case.reference(copy, 0.5).logits(prompt.input_ids, prompt.pixel_values)
    assert (ours(prompt) - wanted).abs().max() <= 1e-4 * wanted.std()


@each_family
def test_the_engine_gives_what_plain_forwards_give(name) -> None:
    case = CASES[name]
    prompt = case.prompts(case.ours)[0]
    routes = ("cross-frame", "video -> last")
    cuts = [Knockout.route(route, layers=layers) for route in routes for layers in ([0], [1], [0, 1, 2])]
    cuts += [Knockout(f"frame {frame}", "last", layers=[0, 1, 2]) for frame in range(3)]
    exact, full = (sweep(case.ours, prompt, cuts, engine=engine) for engine in ("exact", "full"))
    assert (exact.logits - full.logits).abs().max() <= 1e-4 * full.base.std()
    assert ((full.logits - full.base).abs().amax(-1) > 0.01 * full.base.std()).all()
