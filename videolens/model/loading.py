"""From a name or directory to a converted model. Weights are read from safetensors only and are never copied."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from videolens.bundled import bundled_names, bundled_path
from videolens.errors import ModelError, near
from videolens.model.attention import Attention
from videolens.model.block import Block
from videolens.model.config import VideoTransformerConfig
from videolens.model.families import Family, family_of
from videolens.model.frontend import FrontEnd, Rotary
from videolens.model.layers import GatedMLP, RMSNorm, Unembed
from videolens.model.pixels import PixelSettings

__all__ = ["Checkpoint", "Converted", "convert", "read_checkpoint"]

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
DEFAULT_TEMPLATE = "vicuna"
BUNDLED_TEMPLATE = "shapes"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as it was read.

    Attributes:
        template: name of the prompt template it was trained with: `prompt_template` of its config.json.
    """

    name: str
    family: Family
    module: nn.Module
    tokenizer: Any
    pixels: PixelSettings | None
    template: str


@dataclass(frozen=True)
class Converted:
    """The parts of a `HookedVideoTransformer`, sharing storage with what they were converted from."""

    cfg: VideoTransformerConfig
    frontend: FrontEnd
    blocks: list[Block]
    ln_final: RMSNorm
    unembed: Unembed


def read_checkpoint(name: str | os.PathLike[str], *, dtype: torch.dtype | None, trust_remote_code: bool) -> Checkpoint:
    """Read a bundled checkpoint, a directory, or a repository on the hub.

    1. Find it: a bundled name, else a directory, else a hub name of the form owner/name.
    2. Its `config.model_type` says which family reads it.
    3. Weights from safetensors; a key that is missing or has the wrong shape is an error, never a random tensor.
    4. Tokenizer and preprocessor settings where the checkpoint has them.

    Raises:
        ModelError: not found, no safetensors, unknown or text-only architecture, weights that do not fit.
    """
    import transformers

    # 1.
    where = _find(os.fspath(name))
    source: str = str(where)
    # 2.
    try:
        settings, _ = transformers.PreTrainedConfig.get_config_dict(source)
    except (OSError, ValueError) as error:
        lost = "" if isinstance(where, Path) else ": no such directory here, and not found on the hub"
        raise ModelError(f"{source!r} has no readable config.json{lost} ({error}); {_bundled_hint()}") from error
    family = family_of(str(settings.get("model_type", "none given")), settings.get("architectures") or ())
    # 3.
    if isinstance(where, Path) and not list(where.glob("*.safetensors")):
        others = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in where.glob(pattern))
        raise ModelError(
            f"{where} holds no *.safetensors file{f', only {others}' if others else ''}; pickled weights are refused: "
            "load them where you trust them and write them with model.save_pretrained(directory)"
        )
    module = _load_weights(source, family, dtype=dtype, trust_remote_code=trust_remote_code)
    # 4.
    directory = where if isinstance(where, Path) else _snapshot(source)
    tokenizer = None
    if any((directory / file).is_file() for file in _TOKENIZER_FILES):
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(directory), trust_remote_code=trust_remote_code)
    bundled = os.fspath(name) in bundled_names()
    return Checkpoint(
        name=os.fspath(name),
        family=family,
        module=module,
        tokenizer=tokenizer,
        pixels=PixelSettings.from_directory(directory),
        template=str(settings.get("prompt_template", BUNDLED_TEMPLATE if bundled else DEFAULT_TEMPLATE)),
    )


def _find(name: str) -> Path | str:
    """A directory, or a hub name."""
    if name in bundled_names():
        return bundled_path(name)
    path = Path(name).expanduser()
    if name and path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{path} is a directory without config.json, so not a checkpoint; {_bundled_hint()}")
        return path
    if path.is_file():
        raise ModelError(f"{path} is a file; give the directory of a checkpoint (config.json, *.safetensors)")
    if not name or path.is_absolute() or name.startswith(".") or name.count("/") != 1:
        raise ModelError(
            near(name, bundled_names(), kind="model") + "; nor is it a directory or a hub name (owner/name)"
        )
    return name


def _bundled_hint() -> str:
    return f"bundled models: {', '.join(map(repr, bundled_names())) or 'none'}"


def _snapshot(name: str) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, allow_patterns=["*.json", "tokenizer*", "*.model", "*.txt"]))


def _load_weights(source: str, family: Family, *, dtype: torch.dtype | None, trust_remote_code: bool) -> nn.Module:
    import transformers
    from safetensors import SafetensorError

    if callable(family.architecture):
        raise NotImplementedError
    architecture = getattr(transformers, family.architecture)
    try:
        module, info = architecture.from_pretrained(
            source,
            dtype=dtype if dtype is not None else "auto",
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, with their names
        )
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise ModelError(f"the weights of {source!r} cannot be read: {type(error).__name__}: {error}") from error
    missing, wrong = sorted(info.get("missing_keys", ())), sorted(info.get("mismatched_keys", ()))
    if missing or wrong:
        raise ModelError(
            f"{source!r} does not fit {family.architecture}: {len(missing)} weights are missing ({missing[:3]} …), "
            f"{len(wrong)} have another shape ({wrong[:3]} …); config.json and *.safetensors must belong together"
        )
    return module


def convert(module: nn.Module, family: Family, *, name: str) -> Converted:
    """Take a loaded model's parts as they lie; everything else of it can be dropped."""
    config = module.config
    text = family.text_config(config)
    decoder: Any = module.get_submodule(family.decoder)
    head: Any = module.get_submodule(family.unembed)
    embed = _shared_embedding(decoder.embed_tokens)
    d_head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    cfg = VideoTransformerConfig(
        d_model=text.hidden_size,
        d_head=d_head,
        n_layers=text.num_hidden_layers,
        n_ctx=text.max_position_embeddings,
        n_heads=text.num_attention_heads,
        n_key_value_heads=getattr(text, "num_key_value_heads", None) or text.num_attention_heads,
        d_mlp=text.intermediate_size,
        d_vocab=head.weight.shape[0],
        eps=text.rms_norm_eps,
        act_fn=text.hidden_act,
        device=str(embed.weight.device),
        dtype=embed.weight.dtype,
        model_name=name,
        model_type=family.model_type,
        video_token=family.video_token(config),
        d_vision=getattr(getattr(config, "vision_config", None), "hidden_size", -1),
    )
    parts = {part: _part(module, path) for part, path in family.parts.items()}
    frontend = FrontEnd(family, config, parts=parts, embed=embed, rotary=Rotary(decoder.rotary_emb))
    frontend.requires_grad_(False)
    blocks = [_block(cfg, family, layer, index) for index, layer in enumerate(decoder.layers)]
    ln_final = RMSNorm(_shared(decoder.norm.weight), cfg.eps)
    tied = head.weight is decoder.embed_tokens.weight
    unembed = Unembed(cast(nn.Parameter, embed.weight) if tied else _shared(head.weight))
    return Converted(cfg=cfg, frontend=frontend, blocks=blocks, ln_final=ln_final, unembed=unembed)


def _block(cfg: VideoTransformerConfig, family: Family, layer: nn.Module, index: int) -> Block:
    paths = family.layer

    def part(path: str) -> Any:
        return layer.get_submodule(path)

    n_kv = cfg.n_key_value_heads or cfg.n_heads
    if paths.qkv is None:
        projections = {name: _shared_linear(part(getattr(paths, name))) for name in "qkv"}
    else:
        sizes = [heads * cfg.d_head for heads in (cfg.n_heads, n_kv, n_kv)]
        projections = dict(zip("qkv", _split_linear(part(paths.qkv), sizes), strict=True))
    if paths.gate_up is None:
        gate, up = (_shared_linear(part(path)) for path in (paths.gate, paths.up))
    else:
        fused = part(paths.gate_up)
        gate, up = _split_linear(fused, [fused.out_features // 2] * 2)
    attn = Attention(cfg, index, **projections, o=_shared_linear(part(paths.o)))
    attn.q_norm, attn.k_norm = (
        RMSNorm(_shared(part(path).weight), cfg.eps) if _has(layer, path) else None
        for path in (paths.q_norm, paths.k_norm)
    )
    return Block(
        cfg,
        ln1=RMSNorm(_shared(part(paths.ln1).weight), cfg.eps),
        attn=attn,
        ln2=RMSNorm(_shared(part(paths.ln2).weight), cfg.eps),
        mlp=GatedMLP(part(paths.act), gate=gate, up=up, down=_shared_linear(part(paths.down))),
    )


def _part(module: nn.Module, path: str) -> nn.Module | nn.Parameter:
    """A module, or a single parameter."""
    parent, _, name = path.rpartition(".")
    found = getattr(module.get_submodule(parent), name)
    return _shared(found) if isinstance(found, torch.Tensor) else found


def _has(layer: nn.Module, path: str) -> bool:
    try:
        return isinstance(layer.get_submodule(path), nn.Module)
    except AttributeError:
        return False


def _shared(weight: torch.Tensor) -> nn.Parameter:
    """The same storage as a parameter of our own. Frozen: gradients start where a backward hook asks for them."""
    return nn.Parameter(weight.detach(), requires_grad=False)


def _shared_linear(linear: nn.Linear) -> nn.Linear:
    own = nn.Linear(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
    own.weight = _shared(linear.weight)
    if linear.bias is not None:
        own.bias = _shared(linear.bias)
    return own


def _split_linear(linear: nn.Linear, sizes: list[int]) -> list[nn.Linear]:
    """The parts of a fused projection: rows of its weight, in its storage."""
    parts = []
    for weight, bias in zip(
        linear.weight.split(sizes),
        linear.bias.split(sizes) if linear.bias is not None else [None] * len(sizes),
        strict=True,
    ):
        own = nn.Linear(linear.in_features, len(weight), bias=bias is not None, device="meta")
        own.weight = _shared(weight)
        if bias is not None:
            own.bias = _shared(bias)
        parts.append(own)
    return parts


def _shared_embedding(embedding: nn.Embedding) -> nn.Embedding:
    own = nn.Embedding(embedding.num_embeddings, embedding.embedding_dim, device="meta")
    own.weight = _shared(embedding.weight)
    return own
