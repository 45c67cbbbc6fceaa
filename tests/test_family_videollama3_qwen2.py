"""VideoLLaMA3 in its original layout, against its published definition in plain torch."""

from __future__ import annotations

from math import ceil, floor, sqrt
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.parity import (
    STORAGES,
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

from videolens import Question, Video
from videolens.errors import ModelError
from videolens.model.families import family_of
from videolens.model.transformer import HookedVideoTransformer

SPECIAL = ("<image>", "<|im_start|>", "<|im_end|>")
IMAGE = special_ids(SPECIAL)["<image>"]
PATCH, D_VISION, D_MODEL, HEADS, KV_HEADS = 4, 24, 32, 4, 2

CONFIG: dict[str, Any] = {
    "architectures": ["Videollama3Qwen2ForCausalLM"],
    "model_type": "videollama3_qwen2",
    "auto_map": {"AutoModelForCausalLM": "modeling_videollama3.Videollama3Qwen2ForCausalLM"},
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "hidden_size": D_MODEL,
    "image_token_index": IMAGE,
    "initializer_range": 0.02,
    "intermediate_size": 48,
    "max_position_embeddings": 2048,
    "max_window_layers": 28,
    "mm_projector_type": "mlp2x_gelu",
    "num_attention_heads": HEADS,
    "num_hidden_layers": 3,
    "num_key_value_heads": KV_HEADS,
    "rms_norm_eps": 1e-6,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "use_cache": True,
    "use_sliding_window": False,
    "use_token_compression": True,
    "vision_encoder": None,
    "vision_encoder_config": {
        "model_type": "videollama3_vision_encoder",
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": D_VISION,
        "intermediate_size": 40,
        "layer_norm_eps": 1e-6,
        "num_attention_heads": 2,
        "num_channels": 3,
        "num_hidden_layers": 2,
        "patch_size": PATCH,
    },
    "vocab_size": 264,
}


def turned(x: Tensor, angles: Tensor) -> Tensor:
    """Rotary: coordinate i of a head and coordinate i + half are the parts of a complex number, turned by an angle.

    x [head pos d_head], angles [pos d_head/2]
    """
    real, imaginary = x.chunk(2, dim=-1)
    z = torch.complex(real, imaginary) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([z.real, z.imag], dim=-1)


class TowerAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(D_VISION, D_VISION) for _ in range(4))

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        heads = [p(x).unflatten(-1, (2, -1)).transpose(0, 1) for p in (self.q_proj, self.k_proj, self.v_proj)]
        q, k, v = turned(heads[0], angles), turned(heads[1], angles), heads[2]
        weights = (q @ k.mT / sqrt(q.shape[-1])).softmax(-1)
        return self.out_proj((weights @ v).transpose(0, 1).flatten(1))


class TowerLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn = TowerAttention()
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(D_VISION, eps=1e-6), nn.LayerNorm(D_VISION, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(D_VISION, 40), "fc2": nn.Linear(40, D_VISION)})

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x), angles)
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.layer_norm2(x)), approximate="tanh"))


class Tower(nn.Module):
    """One frame: patches row by row, rotary angles from row and column, halved by bilinear interpolation."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict({"patch_embedding": nn.Conv2d(3, D_VISION, PATCH, stride=PATCH)})
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(TowerLayer() for _ in range(2))})
        self.post_layernorm = nn.LayerNorm(D_VISION, eps=1e-6)

    def forward(self, frame: Tensor) -> Tensor:
        x = self.embeddings["patch_embedding"](frame[None])[0]
        _, rows, columns = x.shape
        quarter = D_VISION // 2 // 4
        rates = 10000.0 ** (-torch.arange(quarter) / quarter)
        row, column = torch.arange(rows * columns) // columns, torch.arange(rows * columns) % columns
        angles = torch.cat([row[:, None] * rates, column[:, None] * rates], dim=1)
        x = x.flatten(1).T
        for layer in self.encoder["layers"]:
            x = layer(x, angles)
        x = self.post_layernorm(x).T.reshape(1, D_VISION, rows, columns)
        return F.interpolate(x, size=(rows // 2, columns // 2), mode="bilinear")[0].flatten(1).T


class Norm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(D_MODEL))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        narrow = D_MODEL // HEADS * KV_HEADS
        self.q_proj = nn.Linear(D_MODEL, D_MODEL)
        self.k_proj, self.v_proj = nn.Linear(D_MODEL, narrow), nn.Linear(D_MODEL, narrow)
        self.o_proj = nn.Linear(D_MODEL, D_MODEL, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        n, half = x.shape[1], D_MODEL // HEADS // 2
        angles = torch.arange(n)[:, None] * 1e6 ** (-torch.arange(half) / half)
        q, k, v = (p(x).unflatten(-1, (-1, 2 * half)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        k, v = (one.repeat_interleave(HEADS // KV_HEADS, dim=1) for one in (turned(k, angles), v))
        scores = turned(q, angles) @ k.mT / sqrt(2 * half)
        pattern = scores.masked_fill(torch.ones(n, n).triu(1).bool(), -torch.inf).softmax(-1)
        return self.o_proj((pattern @ v).transpose(1, 2).flatten(2)), pattern


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn = Attention()
        self.input_layernorm, self.post_attention_layernorm = Norm(), Norm()
        self.mlp = nn.ModuleDict(
            {
                "gate_proj": nn.Linear(D_MODEL, 48, bias=False),
                "up_proj": nn.Linear(D_MODEL, 48, bias=False),
                "down_proj": nn.Linear(48, D_MODEL, bias=False),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x))[0]
        y = self.post_attention_layernorm(x)
        return x + self.mlp["down_proj"](F.silu(self.mlp["gate_proj"](y)) * self.mlp["up_proj"](y))


class Original(nn.Module):
    """Its parameters have the published names. Every visual token is kept."""

    def __init__(self, *, tied: bool = False) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(264, D_MODEL)
        self.model.layers = nn.ModuleList(Layer() for _ in range(3))
        self.model.norm = Norm()
        self.model.vision_encoder = Tower()
        readout = nn.Sequential(nn.Linear(D_VISION, D_MODEL), nn.GELU(), nn.Linear(D_MODEL, D_MODEL))
        self.model.mm_projector = nn.ModuleDict({"readout": readout})
        self.lm_head = nn.Linear(D_MODEL, 264, bias=False)
        if tied:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, ids: Tensor, pixels: Tensor) -> Tensor:
        x = self.model.embed_tokens(ids)
        seen = [[self.model.vision_encoder(frame) for frame in clip] for clip in pixels]
        video = self.model.mm_projector["readout"](torch.cat([torch.cat(clip) for clip in seen]))
        # a placeholder that the model writes itself is a word like any other
        row, place = (ids == IMAGE).nonzero()[: len(video)].T
        x[row, place] = video
        for layer in self.model.layers:
            x = layer(x)
        return self.lm_head(self.model.norm(x))


def prompts_of(ours: HookedVideoTransformer) -> list[Any]:
    """Three frames of 2 × 3 tokens, with other tokens between the frames, in prompts of unequal length."""
    frame = [5, 9, *[IMAGE] * 6]
    return [
        ours.prompt_from_ids(ids_around([*frame, 7, *frame, 7, *frame], after=n, seed=n), torch.randn(1, 3, 3, 16, 24))
        for n in (9, 14)
    ]


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The keys that the authors' training code writes: the tower is wrapped once more."""
    once, twice = "model.vision_encoder.", "model.vision_encoder.vision_encoder."
    return {key.replace(once, twice): value for key, value in state.items()}


@pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES)
def test_parity(storage, tmp_path) -> None:
    original = randomise(Original())
    write_state(tmp_path, original.state_dict(), CONFIG, storage)
    ours = HookedVideoTransformer.from_pretrained(tmp_path, dtype=torch.float32)
    reference = rounded(original, storage)
    prove(ours, PlainReference(reference, reference.model.layers), prompts_of(ours))


def test_tied_embeddings_and_a_tower_that_is_wrapped_twice(tmp_path) -> None:
    original = randomise(Original(tied=True))
    state = {key: value for key, value in renamed(original.state_dict()).items() if key != "lm_head.weight"}
    assert any(key.startswith("model.vision_encoder.vision_encoder.encoder.layers.0.") for key in state)
    write_state(tmp_path, state, CONFIG | {"tie_word_embeddings": True})
    ours = HookedVideoTransformer.from_pretrained(tmp_path)
    assert ours.unembed.weight is ours.frontend.embed.weight
    prove(ours, PlainReference(original, original.model.layers), prompts_of(ours))


@torch.no_grad()
def test_a_question(tmp_path) -> None:
    original = randomise(Original())
    settings = {
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "patch_size": PATCH,
        "min_tokens": 2,
        "max_tokens": 24,
        "resample": 3,
    }
    files = {"preprocessor_config.json": settings, "processor_config.json": {"fps": 1, "video_merge_size": 2}}
    write_state(tmp_path, original.state_dict(), CONFIG, files=files)
    byte_tokenizer(SPECIAL, eos="<|im_end|>").save_pretrained(tmp_path)
    ours = HookedVideoTransformer.from_pretrained(tmp_path)
    video = Video.from_array(torch.randint(0, 256, (3, 40, 70, 3), dtype=torch.uint8).numpy(), fps=2)
    prompt = ours.prompt(Question(video, "What moves?", ["a dog", "a cat"], "a cat"), "vicuna")
    frames, rows, columns = prompt.tokens.grid
    assert (frames, rows, columns) == (3, 2, 3)
    each = "<image>" * (rows * columns)
    whole = prompt.text.replace("<image>", f"Time 0.0s:{each},Time 0.5s:{each},Time 1.0s:{each}")
    assert prompt.input_ids[0].tolist() == ours.tokenizer(whole)["input_ids"]
    wanted = original(prompt.input_ids, prompt.pixel_values)
    assert (ours(prompt) - wanted).abs().max() <= 1e-4 * wanted.std()


def published_size(frames: int, height: int, width: int, *, side: int, least: int, most: int) -> tuple[int, int]:
    """The published rule, in tokens as its settings are."""
    h, w = round(height / side) * side, round(width / side) * side
    if h * w > most * side * side // frames:
        beta = sqrt((height * width) / (most * side * side // frames))
        h, w = floor(height / beta / side) * side, floor(width / beta / side) * side
    if h * w < least * side * side:
        beta = sqrt(least * side * side / (height * width))
        h, w = ceil(height * beta / side) * side, ceil(width * beta / side) * side
    return h, w


@pytest.mark.parametrize("frames", [1, 8, 128])
@pytest.mark.parametrize("size", [(360, 640), (1080, 1920), (20, 30), (64, 2000), (224, 224)])
def test_sizes_follow_the_published_rule(frames, size) -> None:
    for most in (1152, 16384):
        budget = family_of("videollama3_qwen2", ["Videollama3Qwen2ForCausalLM"]).pixels({"max_tokens": most})
        found = budget.size(frames, *size)
        assert found == published_size(frames, *size, side=28, least=16, most=most)
        # the least of a frame goes before the most of a clip
        assert frames * found[0] * found[1] <= most * 28**2 or frames == 128


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vision_encoder_config": None, "vision_encoder": "DAMO-NLP-SG/SigLIP-NaViT"}, "SigLIP-NaViT.*hidden_size"),
        ({"mm_projector_type": "linear"}, "mm_projector_type 'linear'"),
        ({"image_token_index": -1}, "image_token_index -1.*<image>"),
    ],
)
def test_configs_that_say_too_little(tmp_path, change, said) -> None:
    write_state(tmp_path, Original().state_dict(), CONFIG | change)
    with pytest.raises(ModelError, match=said):
        HookedVideoTransformer.from_pretrained(tmp_path)
