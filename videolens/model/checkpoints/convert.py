"""From a loaded module to a decoder with hook points: weights are taken as they lie and never copied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from videolens.errors import ModelError, refusing
from videolens.model.checkpoints.settings import check_config
from videolens.model.decoder.attention import Attention
from videolens.model.decoder.block import Block
from videolens.model.decoder.config import VideoTransformerConfig
from videolens.model.decoder.layers import GatedMLP, RMSNorm, Unembed, is_quantised, matrix
from videolens.model.families import Family
from videolens.model.vision.frontend import FrontEnd, Rotary

_ATTENTION = ("full_attention", "sliding_attention")


@dataclass(frozen=True)
class Converted:
    """The parts of a `HookedVideoTransformer`, sharing storage with what they were converted from."""

    cfg: VideoTransformerConfig
    frontend: FrontEnd
    blocks: list[Block]
    ln_final: RMSNorm
    unembed: Unembed


def convert(module: nn.Module, family: Family, *, name: str) -> Converted:
    """Take a loaded model's parts as they lie; everything else of it can be dropped.

    Raises:
        ModelError: its config has a setting that cannot be followed; attention that is not causal, or is not there in
            every layer.
    """
    with refusing(ModelError, f"config.json does not describe a {family.model_type!r} model as it is read here"):
        check_config(module.config)
        _check_attention(family, family.text_config(module.config), name)
        return _converted(module, family, name=name)


def _converted(module: nn.Module, family: Family, *, name: str) -> Converted:
    config: Any = module.config
    text = family.text_config(config)
    decoder: Any = module.get_submodule(family.decoder)
    head: Any = module.get_submodule(family.unembed)
    matrix(head)  # logits and lenses multiply by it
    embed = nn.Embedding.from_pretrained(decoder.embed_tokens.weight.detach())
    d_head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    vision = getattr(config, "vision_config", None)
    cfg = VideoTransformerConfig(
        d_model=text.hidden_size,
        d_head=d_head,
        n_layers=text.num_hidden_layers,
        # a sliding window changes nothing in prompts that fit into it; what it does to longer ones is not done here
        n_ctx=min(text.max_position_embeddings, getattr(text, "sliding_window", None) or text.max_position_embeddings),
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
        causal=family.causal,
        video_token=family.video_token(config),
        # Qwen2-VL's hidden_size is the decoder's
        d_vision=next((getattr(vision, name) for name in ("embed_dim", "hidden_size") if hasattr(vision, name)), -1),
    )
    parts = {part: _part(module, path) for part, path in family.parts.items()}
    frontend = FrontEnd(family, config, name=name, parts=parts, embed=embed, rotary=Rotary(decoder.rotary_emb))
    frontend.requires_grad_(False)
    stacked = _deepstack_layers(family, config, cfg.n_layers)
    blocks = [_block(cfg, family, layer, i, deepstack=i < stacked) for i, layer in enumerate(decoder.layers)]
    ln_final = RMSNorm(_shared(decoder.norm.weight), cfg.eps)
    tied = head.weight is decoder.embed_tokens.weight
    unembed = Unembed(cast(nn.Parameter, embed.weight) if tied else _shared(head.weight))
    return Converted(cfg=cfg, frontend=frontend, blocks=blocks, ln_final=ln_final, unembed=unembed)


def _check_attention(family: Family, text: Any, name: str) -> None:
    """Refuse a decoder that computes something else than is computed here, which would give other numbers."""
    said = getattr(text, "is_causal", True) is False or bool(getattr(text, "use_bidirectional_attention", False))
    if said or not family.causal:
        who = "config.json says" if said else f"the family {family.model_type!r} says"
        raise ModelError(
            f"{name}: {who} that attention is not causal, and the decoder here masks every later token: its numbers "
            "would be those of another model"
        )
    kinds = dict.fromkeys(getattr(text, "layer_types", None) or ())
    if others := [kind for kind in kinds if kind not in _ATTENTION]:
        raise ModelError(
            f"{name}: config.json has layers of the kind {', '.join(map(repr, others))}, which are no attention; the "
            "decoder here has attention in every layer"
        )


def _deepstack_layers(family: Family, config: Any, n_layers: int) -> int:
    """After how many layers features of the tower are added.

    Raises:
        ModelError: more than there are.
    """
    found = 0 if family.deepstack is None else family.deepstack.layers(config)
    if found > n_layers:
        raise ModelError(
            f"config.json has features of {found} layers of the vision tower added after the decoder's first layers, "
            f"of which there are {n_layers}: its parts must belong together"
        )
    return found


def _block(
    cfg: VideoTransformerConfig, family: Family, layer: nn.Module, index: int, *, deepstack: bool = False
) -> Block:
    paths, named = family.layer, dict(layer.named_modules(remove_duplicate=False))

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
        RMSNorm(_shared(part(path).weight), cfg.eps) if path in named else None for path in (paths.q_norm, paths.k_norm)
    )
    return Block(
        cfg,
        ln1=RMSNorm(_shared(part(paths.ln1).weight), cfg.eps),
        attn=attn,
        ln2=RMSNorm(_shared(part(paths.ln2).weight), cfg.eps),
        mlp=GatedMLP(part(paths.act), gate=gate, up=up, down=_shared_linear(part(paths.down))),
        deepstack=deepstack,
    )


def _part(module: nn.Module, path: str) -> nn.Module | nn.Parameter:
    """A module, or a single parameter."""
    parent, _, name = path.rpartition(".")
    found = getattr(module.get_submodule(parent), name)
    return _shared(found) if isinstance(found, torch.Tensor) else found


def _shared(weight: torch.Tensor) -> nn.Parameter:
    """The same storage as a parameter of our own. Frozen: gradients start where a backward hook asks for them."""
    return nn.Parameter(weight.detach(), requires_grad=False)


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    own = nn.Linear(weight.shape[1], len(weight), bias=bias is not None, device="meta")
    own.weight = _shared(weight)
    if bias is not None:
        own.bias = _shared(bias)
    return own


def _shared_linear(linear: nn.Linear) -> nn.Linear:
    if is_quantised(linear):
        return linear.requires_grad_(False)  # its arithmetic is its own
    return _linear(linear.weight, linear.bias)


def _split_linear(linear: nn.Linear, sizes: list[int]) -> list[nn.Linear]:
    """The parts of a fused projection: rows of its weight, in its storage."""
    if is_quantised(linear):
        raise ModelError(
            f"a fused projection of {linear.out_features} rows is quantised, and its rows cannot be told apart: use "
            "the checkpoint it was quantised from"
        )
    biases = [None] * len(sizes) if linear.bias is None else linear.bias.split(sizes)
    return [_linear(weight, bias) for weight, bias in zip(linear.weight.split(sizes), biases, strict=True)]
