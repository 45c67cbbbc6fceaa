"""PLLaVA in its published layout against plain torch: every storage, merged frames, the paper's prompt.

The original, as it is published: CLIP ViT (arXiv 2103.00020) with `quick_gelu`, hidden state −2 without class token;
linear, GELU, linear; average over time and space (arXiv 2404.16994); Llama (arXiv 2302.13971).
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from helpers.parity import (
    STORAGES,
    HuggingFaceReference,
    PlainReference,
    byte_tokenizer,
    ids_around,
    prove,
    randomise,
    rounded,
    special_ids,
    write_state,
)
from torch import Tensor, nn
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from videolens import Prompt, Question, Video
from videolens.errors import ModelError
from videolens.model.transformer import HookedVideoTransformer

SPECIAL = ("<s>", "</s>", "<image>")
VIDEO = special_ids(SPECIAL)["<image>"]
IMAGE, PATCH, SIDE, CHANNELS = 16, 4, 4, 16
WIDTH, HEADS, KV_HEADS, HEAD, MLP, VOCAB = 32, 4, 2, 8, 48, 264
FRAMES, EACH = 3, 4
CONFIG = {
    "model_type": "llava",
    "architectures": ["PllavaForConditionalGeneration"],
    "ignore_index": -100,
    "image_token_index": VIDEO,
    "projector_hidden_act": "gelu",
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "pooling_method": "avg",
    "pooling_shape": [FRAMES, 2, 2],
    "frame_shape": [SIDE, SIDE],
    "num_frames": FRAMES,
    "use_pooling": True,
    "gradient_checkpointing": False,
    "vocab_size": VOCAB,
    "vision_config": {
        "model_type": "clip_vision_model",
        "hidden_size": CHANNELS,
        "intermediate_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": IMAGE,
        "patch_size": PATCH,
        "projection_dim": 8,
        "vocab_size": VOCAB,
    },
    "text_config": {
        "_name_or_path": "lmsys/vicuna-7b-v1.5",
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "float16",
        "vocab_size": VOCAB,
        "hidden_size": WIDTH,
        "intermediate_size": MLP,
        "num_hidden_layers": 3,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-5,
        "rope_theta": 5000.0,
        "rope_scaling": None,
        "_attn_implementation": "flash_attention_2",
    },
}
"""config.json as such checkpoints are published, at a tiny size, with fewer key heads and another base of rotation."""
PREPROCESSOR = {
    "crop_size": {"height": IMAGE, "width": IMAGE},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "CLIPImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": {"shortest_edge": IMAGE},
}


def attend(q: Tensor, k: Tensor, v: Tensor, n_heads: int, *, causal: bool) -> tuple[Tensor, Tensor]:
    """Every head by itself; keys and values are shared by as many heads as there are more of them."""
    size = q.shape[-1] // n_heads
    sharing = q.shape[-1] // k.shape[-1]
    outputs, patterns = [], []
    for h in range(n_heads):
        own, shared = (slice(i * size, (i + 1) * size) for i in (h, h // sharing))
        scores = q[..., own] @ k[..., shared].transpose(1, 2) / math.sqrt(size)
        if causal:
            scores = scores.masked_fill(torch.ones(scores.shape[1:]).triu(1).bool(), -torch.inf)
        patterns.append(scores.softmax(-1))
        outputs.append(patterns[-1] @ v[..., shared])
    return torch.cat(outputs, dim=-1), torch.stack(patterns, dim=1)


class VisionLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(CHANNELS), nn.LayerNorm(CHANNELS)
        names = ("q_proj", "k_proj", "v_proj", "out_proj")
        self.self_attn = nn.ModuleDict({name: nn.Linear(CHANNELS, CHANNELS) for name in names})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(CHANNELS, 24), "fc2": nn.Linear(24, CHANNELS)})

    def forward(self, x: Tensor) -> Tensor:
        normed = self.layer_norm1(x)
        q, k, v = (self.self_attn[f"{name}_proj"](normed) for name in "qkv")
        x = x + self.self_attn["out_proj"](attend(q, k, v, 2, causal=False)[0])
        inner = self.mlp["fc1"](self.layer_norm2(x))
        return x + self.mlp["fc2"](inner * torch.sigmoid(1.702 * inner))


class VisionTower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Module()
        self.embeddings.class_embedding = nn.Parameter(torch.zeros(CHANNELS))
        self.embeddings.patch_embedding = nn.Conv2d(3, CHANNELS, PATCH, PATCH, bias=False)
        self.embeddings.position_embedding = nn.Embedding(SIDE**2 + 1, CHANNELS)
        self.pre_layrnorm = nn.LayerNorm(CHANNELS)  # so it is written
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(VisionLayer() for _ in range(3))
        self.post_layernorm = nn.LayerNorm(CHANNELS)

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.embeddings.class_embedding.expand(len(pixels), 1, -1), patches], dim=1)
        x = self.pre_layrnorm(x + self.embeddings.position_embedding.weight)
        for layer in list(self.encoder.layers)[:-1]:  # the last but one hidden state
            x = layer(x)
        return x[:, 1:]


class RMS(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * self.weight


class TextAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for name, out in (("q_proj", WIDTH), ("k_proj", KV_HEADS * HEAD), ("v_proj", KV_HEADS * HEAD)):
            setattr(self, name, nn.Linear(WIDTH, out, bias=False))
        self.o_proj = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        angle = torch.arange(x.shape[1])[:, None, None] * 5000.0 ** (-torch.arange(HEAD // 2) * 2 / HEAD)

        def turned(flat: Tensor) -> Tensor:
            a, b = flat.unflatten(-1, (-1, HEAD)).chunk(2, dim=-1)
            return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1).flatten(2)

        z, pattern = attend(turned(self.q_proj(x)), turned(self.k_proj(x)), self.v_proj(x), HEADS, causal=True)
        return self.o_proj(z), pattern


class TextLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = RMS(), RMS()
        self.self_attn = TextAttention()
        sizes = {"gate_proj": (WIDTH, MLP), "up_proj": (WIDTH, MLP), "down_proj": (MLP, WIDTH)}
        self.mlp = nn.ModuleDict({name: nn.Linear(*size, bias=False) for name, size in sizes.items()})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x))[0]
        normed = self.post_attention_layernorm(x)
        gate = self.mlp["gate_proj"](normed)
        return x + self.mlp["down_proj"](gate * gate.sigmoid() * self.mlp["up_proj"](normed))


class PlainPllava(nn.Module):
    """Its `state_dict` has the keys of the published layout."""

    def __init__(self) -> None:
        super().__init__()
        self.vision_tower = nn.Module()
        self.vision_tower.vision_model = VisionTower()
        self.multi_modal_projector = nn.ModuleDict(
            {"linear_1": nn.Linear(CHANNELS, WIDTH), "linear_2": nn.Linear(WIDTH, WIDTH)}
        )
        self.language_model = nn.Module()
        self.language_model.model = nn.Module()
        self.language_model.model.embed_tokens = nn.Embedding(VOCAB, WIDTH)
        self.language_model.model.layers = nn.ModuleList(TextLayer() for _ in range(3))
        self.language_model.model.norm = RMS()
        self.language_model.lm_head = nn.Linear(WIDTH, VOCAB, bias=False)

    def video(self, clip: Tensor) -> Tensor:
        """[video d_model]: each token is the mean of the places of `FRAMES` × 2 × 2 equal boxes."""
        inner = self.multi_modal_projector["linear_1"](self.vision_tower.vision_model(clip))
        inner = self.multi_modal_projector["linear_2"](inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2))))
        places = inner.unflatten(1, (SIDE, SIDE))
        each, half = len(clip) // FRAMES, SIDE // 2
        boxes = [
            places[t * each : (t + 1) * each, r * half : (r + 1) * half, c * half : (c + 1) * half].mean((0, 1, 2))
            for t in range(FRAMES)
            for r in range(2)
            for c in range(2)
        ]
        return torch.stack(boxes)

    def forward(self, ids: Tensor, pixels: Tensor) -> Tensor:
        text = self.language_model
        x = text.model.embed_tokens(ids)
        for row, clip in enumerate(pixels.expand(len(ids), *pixels.shape[1:])):
            x[row, ids[row] == VIDEO] = self.video(clip)
        for layer in text.model.layers:
            x = layer(x)
        return text.lm_head(text.model.norm(x))


def write(directory, module: PlainPllava, storage=STORAGES["fp32"], **changes: Any):
    files = {"preprocessor_config.json": PREPROCESSOR}
    write_state(directory, module.state_dict(), CONFIG | changes, storage, files=files)
    byte_tokenizer(SPECIAL, bos="<s>", eos="</s>", prepend_bos=True).save_pretrained(directory)
    return directory


def original() -> PlainPllava:
    return randomise(PlainPllava())


def reference(module: PlainPllava) -> PlainReference:
    return PlainReference(module, list(module.language_model.model.layers))


def prompts(ours: HookedVideoTransformer, frames: int = FRAMES) -> list[Prompt]:
    return [
        ours.prompt_from_ids(ids_around([VIDEO], after=n, seed=n), torch.randn(1, frames, 3, IMAGE, IMAGE))
        for n in (9, 14)
    ]


@pytest.fixture(scope="module")
def plain() -> PlainPllava:
    return original()


@pytest.fixture(scope="module")
def model(plain, tmp_path_factory) -> HookedVideoTransformer:
    return HookedVideoTransformer.from_pretrained(write(tmp_path_factory.mktemp("pllava"), plain))


@pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES)
def test_parity(storage, plain, tmp_path) -> None:
    ours = HookedVideoTransformer.from_pretrained(write(tmp_path, plain, storage), dtype=torch.float32)
    prove(ours, reference(rounded(plain, storage)), prompts(ours))


def test_parity_of_merged_frames(plain, model) -> None:
    two = prompts(model, 2 * FRAMES)
    assert two[0].tokens.grid == (FRAMES, 2, 2) and two[0].tokens.merged == 2
    prove(model, reference(plain), two)


def test_without_pooling_it_is_llava(plain, tmp_path) -> None:
    """Transformers' LLaVA, whose images are the frames, wherever the pool leaves all as it is."""
    known = LlavaConfig(
        vision_config=CLIPVisionConfig(**CONFIG["vision_config"]),
        text_config=LlamaConfig(**{k: v for k, v in CONFIG["text_config"].items() if k[0] != "_"}),
        image_token_index=VIDEO,
    )
    llava = LlavaForConditionalGeneration(known).float()
    renamed = {
        "vision_tower.vision_model.": "model.vision_tower.",
        "multi_modal_projector.": "model.multi_modal_projector.",
        "language_model.model.": "model.language_model.",
        "language_model.lm_head.": "lm_head.",
    }
    state = {}
    for key, value in plain.state_dict().items():
        start = next(old for old in renamed if key.startswith(old))
        state[renamed[start] + key.removeprefix(start)] = value
    llava.load_state_dict(state)
    ours = HookedVideoTransformer.from_pretrained(write(tmp_path, plain, pooling_shape=[FRAMES, SIDE, SIDE]))
    inputs = lambda ids, pixels: {"input_ids": ids, "pixel_values": pixels.flatten(0, 1)}  # noqa: E731
    prove(ours, HuggingFaceReference(llava, inputs), prompts(ours))


def test_images_alone_are_refused(plain, tmp_path) -> None:
    directory = write(tmp_path, plain, architectures=["LlavaForConditionalGeneration"])
    with pytest.raises(ModelError, match=r"known with architectures \['Pllava.*not with \['LlavaForConditional"):
        HookedVideoTransformer.from_pretrained(directory)


@pytest.mark.parametrize("frames", [1, FRAMES - 1, FRAMES + 1])
def test_frames_that_cannot_be_pooled_are_refused(frames, model) -> None:
    with pytest.raises(
        ModelError, match=rf"{frames} frames cannot be pooled to the {FRAMES} .* a multiple of {FRAMES}"
    ):
        prompts(model, frames)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pooling_method": "max"}, "pooling_method 'max'"),
        ({"pooling_shape": [2, 2]}, r"pooling_shape \[2, 2\]"),
        ({"vision_feature_layer": -5}, "vision_feature_layer -5; the tower has 4"),
        ({"vision_feature_select_strategy": "full"}, "'full'"),
        ({"text_config": CONFIG["text_config"] | {"model_type": "mistral"}}, r"text_config\.model_type 'mistral'"),
    ],
)
def test_other_settings_are_refused(changes, said, plain, tmp_path) -> None:
    with pytest.raises(ModelError, match=said):
        HookedVideoTransformer.from_pretrained(write(tmp_path, plain, **changes))


def test_what_config_json_leaves_out_is_as_published(plain, tmp_path) -> None:
    left_out = ("vision_feature_layer", "vision_feature_select_strategy", "pooling_method", "projector_hidden_act")
    directory = write(tmp_path, plain)
    write_state(directory, plain.state_dict(), {name: CONFIG[name] for name in CONFIG if name not in left_out})
    ours = HookedVideoTransformer.from_pretrained(directory)
    prove(ours, reference(plain), prompts(ours))


@pytest.mark.parametrize("merged", [1, 2])
def test_the_prompt_of_a_question(merged, model) -> None:
    frames = torch.randint(0, 256, (FRAMES * merged, 20, 28, 3), dtype=torch.uint8)
    question = Question(Video.from_array(frames, fps=2.0), "Which way?", ["left", "right"], "left")
    prompt = model.prompt(question)
    assert prompt.pixel_values.shape[2:] == (3, IMAGE, IMAGE)
    tokens = prompt.tokens
    assert len(tokens["video"]) == FRAMES * EACH and tokens.merged == merged
    assert tokens.seconds[tokens["video"]].unique().tolist() == question.video.seconds[::merged].tolist()
    text = model.tokenizer.decode(prompt.input_ids[0])
    assert "\n USER: " + "<image>" * (FRAMES * EACH) + "\n USER: Question: Which way?" in text
    assert text.endswith("ASSISTANT:Best option:(")
