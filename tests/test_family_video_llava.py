"""Video-LLaVA: class tokens are video tokens, and are cut with the video; the tower for images has no say."""

from __future__ import annotations

import copy

import torch
from helpers.families import CASES
from helpers.families.video_llava import PATCH, SIDE

import videolens as vl
from videolens.model.transformer import HookedVideoTransformer

CASE = CASES["video_llava"]


def test_the_class_token_is_column_0_and_patches_follow_row_by_row() -> None:
    prompt = CASE.prompts(CASE.ours)[0]
    n = (SIDE // PATCH) ** 2
    assert prompt.tokens.grid == (3, 1, 1 + n)
    assert prompt.tokens["frame 1"].tolist() == list(range(4 + 1 + n, 4 + 2 * (1 + n)))
    # a tower whose attention adds nothing: the class token is the same in every frame, patches are not
    module = copy.deepcopy(CASE.plain)
    with torch.no_grad():
        for layer in module.model.video_tower.encoder.layers:
            layer.self_attn.out_proj.weight.zero_()
    blind = HookedVideoTransformer.from_hugging_face(module)
    features = CASE.prompts(blind)[0].video_features[0]
    assert (features[0, 0] - features[1, 0]).abs().max() <= 1e-5
    assert ((features[0, 1:] - features[1, 1:]).abs().amax(-1) > 1e-3).all()


@torch.no_grad()
def test_who_does_not_see_the_video_does_not_see_its_class_tokens() -> None:
    ours = CASE.ours
    prompt = CASE.prompts(ours)[0]
    other = ours.prompt_from_ids(prompt.input_ids, torch.randn(prompt.pixel_values.shape))
    last = int(prompt.tokens["video"][-1])
    cut = vl.Knockout("video", "glue | suffix | last", layers=range(3))
    one, two = (ours.run_with_hooks(each, fwd_hooks=cut.hooks(each))[:, last + 1 :] for each in (prompt, other))
    assert torch.equal(one, two)
    patches = prompt.tokens["video"][prompt.tokens.column[prompt.tokens["video"]] > 0]

    def patches_only(mask: torch.Tensor, hook: object) -> torch.Tensor:
        mask[..., last + 1 :, patches] = False
        return mask

    hooks = [(f"blocks.{layer}.attn.hook_mask", patches_only) for layer in range(3)]
    one, two = (ours.run_with_hooks(each, fwd_hooks=hooks)[:, last + 1 :] for each in (prompt, other))
    assert (one - two).abs().max() > 1e-2 * one.std(), "what the class tokens know of the frames gets through"


@torch.no_grad()
def test_the_tower_for_images_is_another_one() -> None:
    module = copy.deepcopy(CASE.plain)
    for parameter in module.model.image_tower.parameters():
        parameter.add_(1.0)
    again = HookedVideoTransformer.from_hugging_face(module)
    for mine, same in zip(CASE.prompts(again), CASE.prompts(CASE.ours), strict=True):
        assert torch.equal(again(mine), CASE.ours(same))
