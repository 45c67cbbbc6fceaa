"""LLaVA-Video and the original LLaVA-OneVision: newlines, times, `<image>` that is no token, published sizes."""

from __future__ import annotations

import json

import pytest
import torch
from helpers.checkpoints import byte_tokenizer, write_state
from helpers.families import CASES, family_named
from helpers.families.case import relaid
from helpers.families.llava_onevision import VIDEO
from helpers.families.llava_qwen import ONEVISION, told
from helpers.families.plain_llava_qwen import CONFIG, IMAGE, SIZE, SPECIAL

import videolens as vl
from videolens.errors import ModelError
from videolens.model.checkpoints.settings import PlainConfig
from videolens.model.families import Clock, family_of
from videolens.model.transformer import HookedVideoTransformer

CASE = CASES["llava_qwen"]
FRAMES, PLACES = 3, 3  # frames; places along a side
CLIP = vl.Video.from_array(torch.randint(0, 256, (FRAMES, 30, 44, 3), dtype=torch.uint8), fps=2.0)
ASKED = vl.Question(CLIP, "Which way?", ["left", "right"], "left")
NEWLINES = {  # how many there are after each frame, the last one's at the end
    "grid": [PLACES] * FRAMES,
    "frame": [1] * FRAMES,
    "one_token": [0] * (FRAMES - 1) + [1],
    "no_token": [0] * FRAMES,
}


@pytest.mark.parametrize("where", NEWLINES)
def test_newlines_stand_where_config_json_says(where, tmp_path) -> None:
    model = HookedVideoTransformer.from_pretrained(CASE.write(tmp_path, CASE.plain, mm_newline_position=where))
    prompt = CASE.prompts(model)[0]
    tokens, newline = prompt.tokens, prompt.tokens["newline"]
    assert tokens.grid == (FRAMES, PLACES, PLACES)
    assert tokens.frame[newline].tolist() == [i for i, n in enumerate(NEWLINES[where]) for _ in range(n)]
    for at in newline.tolist():
        assert torch.equal(prompt.residual[0, at], CASE.plain.image_newline.data)
        assert tokens.column[at - 1] == PLACES - 1, "what it ends is a row"
        assert where == "grid" or tokens.row[at - 1] == PLACES - 1
    assert not set(newline.tolist()) & set(tokens["video"].tolist())


def test_the_times_are_told_behind_the_video(tmp_path) -> None:
    prompt = CASE.ours.prompt(ASKED)
    decode = CASE.ours.tokenizer.decode
    text = decode(prompt.input_ids[0])
    assert "located at 0.00s,0.50s,1.00s.Please answer" in told(prompt) and "lasts for 1.50 seconds" in told(prompt)
    assert f"<image>\n{told(prompt)}\nQuestion: Which way?" in text
    assert text.startswith("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<image>")
    assert text.endswith("best option.<|im_end|>\n<|im_start|>assistant\nBest option:(")
    at = prompt.tokens["separator"]
    assert decode(prompt.input_ids[0, at]) == "\n" + told(prompt)
    assert prompt.tokens.frame[at].unique().tolist() == [FRAMES - 1] and int(at[0]) > int(prompt.tokens["newline"][-1])
    # no times, no words about them
    older = HookedVideoTransformer.from_pretrained(CASE.write(tmp_path, CASE.plain, **ONEVISION))
    assert "<image>\nQuestion: Which way?" in older.tokenizer.decode(older.prompt(ASKED).input_ids[0])


def test_where_no_time_is_known_frames_are_a_second_apart() -> None:
    unknown = Clock(torch.full((FRAMES,), torch.nan, dtype=torch.float64))
    layout = CASE.ours.frontend.family.layout(CASE.ours.frontend.config, (FRAMES, PLACES, PLACES), unknown)
    text = layout.pieces[-1].text
    assert "lasts for 2.00 seconds, and 3 frames" in text and "at 0.00s,1.00s,2.00s.Please" in text


def test_a_tokenizer_without_the_placeholder_gets_it(tmp_path) -> None:
    CASE.write(tmp_path, CASE.plain)
    byte_tokenizer(SPECIAL[:-1], eos="<|im_end|>").save_pretrained(tmp_path)
    model = HookedVideoTransformer.from_pretrained(tmp_path)
    assert model.frontend.video_token == IMAGE == model.tokenizer.convert_tokens_to_ids("<image>")
    prompt, same = model.prompt(ASKED), CASE.ours.prompt(ASKED)
    assert torch.equal(prompt.input_ids, same.input_ids) and torch.equal(model(prompt), CASE.ours(same))
    # in a question it is a word
    asked = vl.Question(CLIP, "What is <image>?", ["left", "right"], "left")
    assert model.prompt(asked).tokens.grid == (FRAMES, PLACES, PLACES)


def test_without_tokenizer_config_json_says_the_placeholder(tmp_path) -> None:
    directory = CASE.write(tmp_path, CASE.plain, bare=True)
    assert HookedVideoTransformer.from_pretrained(directory).frontend.video_token == IMAGE
    changed(directory, image_token_index=None)
    assert HookedVideoTransformer.from_pretrained(directory).frontend.video_token == 151646


def test_frames_need_no_preprocessor_file(tmp_path) -> None:
    directory = CASE.write(tmp_path, CASE.plain)
    (directory / CASE.preprocessor_file).unlink()
    found = HookedVideoTransformer.from_pretrained(directory)
    assert torch.equal(found.pixels(CLIP), CASE.ours.pixels(CLIP))
    assert found.pixels(CLIP).shape == (FRAMES, 3, SIZE, SIZE)


def test_no_more_positions_than_the_authors_code_keeps(tmp_path) -> None:
    assert CASE.ours.cfg.n_ctx == CONFIG["tokenizer_model_max_length"] < CONFIG["max_position_embeddings"]
    directory = CASE.write(tmp_path, CASE.plain, tokenizer_model_max_length=None)
    assert HookedVideoTransformer.from_pretrained(directory).cfg.n_ctx == CONFIG["max_position_embeddings"]


def test_the_architecture_tells_it_from_others_of_its_type() -> None:
    authors = ["LlavaQwenForCausalLM"]
    assert family_of("llava_qwen", authors) is family_named("llava_qwen")
    assert family_of("llava", authors).architecture is family_named("llava_qwen").architecture
    assert family_of("llava", ["PllavaForConditionalGeneration"]) is family_named("pllava")
    with pytest.raises(ModelError, match=r"'llava' is known with architectures \['LlavaQwen.*, 'Pllava.*not with"):
        family_of("llava", ["LlavaForConditionalGeneration"])


def test_the_published_tower_is_known_by_its_name() -> None:
    """Sizes of lmms-lab/llava-onevision-qwen2-7b-ov; nothing is allocated."""
    said = {name: value for name, value in CONFIG.items() if name != "vision_config"} | {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "max_position_embeddings": 32768,
        "num_attention_heads": 28,
        "num_hidden_layers": 28,
        "num_key_value_heads": 4,
        "tokenizer_model_max_length": 32768,
        "vocab_size": 152064,
    }
    config, family = PlainConfig(said), family_named("llava_qwen")
    with torch.device("meta"):
        module = family.architecture(config)
    shapes = {name: tuple(weight.shape) for name, weight in module.named_parameters()}
    assert shapes["vision_tower.embeddings.patch_embedding.weight"] == (1152, 3, 14, 14)
    assert shapes["vision_tower.embeddings.position_embedding.weight"] == (729, 1152)
    assert shapes["vision_tower.encoder.layers.25.mlp.fc1.weight"] == (4304, 1152)
    assert "vision_tower.encoder.layers.26.mlp.fc1.weight" not in shapes
    assert (shapes["mm_projector.0.weight"], shapes["mm_projector.2.weight"]) == ((3584, 1152), (3584, 3584))
    assert family.grid(config, 64, 384, 384) == (64, 14, 14)
    assert family.pixels_without_file(config).size == (384, 384)
    config.mm_spatial_pool_mode = "average"
    assert family.grid(config, 64, 384, 384) == (64, 13, 13)


@pytest.mark.parametrize(
    ("name", "taken"),
    {"mm_projector_type": "'linear'", "mm_patch_merge_type": "'flat'", "mm_spatial_pool_mode": "None"}.items(),
)
def test_what_config_json_leaves_out_is_as_in_the_authors_code(name, taken) -> None:
    family, settings = family_named("llava_qwen"), {key: value for key, value in CONFIG.items() if key != name}
    with torch.device("meta"), pytest.raises(ModelError, match=f"{name} {taken}, .* is read"):
        family.architecture(PlainConfig(settings))
    config = PlainConfig({key: value for key, value in CONFIG.items() if key != "mm_newline_position"})
    with torch.device("meta"):
        family.architecture(config)
    assert config.mm_newline_position == "one_token"


def test_it_computes_what_the_converted_checkpoint_does(tmp_path) -> None:
    """LLaVA-OneVision is published in both layouts: transformers' class on the same weights."""
    other = CASES["llava_onevision"]
    original = other.original(vision_feature_layer=-2)
    state = relaid(
        original.state_dict(),
        ("model.vision_tower.", "model.vision_tower.vision_tower.vision_model."),
        ("model.multi_modal_projector.linear_1.", "model.mm_projector.0."),
        ("model.multi_modal_projector.linear_2.", "model.mm_projector.2."),
        ("model.language_model.", "model."),
    )
    state = {key: value for key, value in state.items() if "encoder.layers.2." not in key}
    base = original.config.text_config.rope_parameters["rope_theta"]
    said = {"mm_newline_position": "one_token", "image_token_index": VIDEO, "rope_theta": base}
    directory = write_state(tmp_path, state, CONFIG | ONEVISION | said)
    other.prove(HookedVideoTransformer.from_pretrained(directory), original)


def changed(directory, **said) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | said))
