"""Where activations can be patched: hook points that hold something for every position of a prompt.

batch: prompts; pos: positions; row, key: queries and keys of attention; head: the heads that the hook point has (keys
and values have fewer where they are grouped); video: video tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from videolens.errors import ModelError, VideolensError, near

__all__ = ["SITES", "Site", "named_site"]

STREAM = ("batch", "pos", "width")
HEADS = ("batch", "pos", "head", "width")
SQUARE = ("batch", "head", "pos", "key")
VIDEO = ("batch", "video", "width")


@dataclass(frozen=True)
class Site:
    """A kind of hook point, one per layer or one for the whole model.

    Attributes:
        name: what it is called, as in TransformerLens' caches ("resid_pre", "z").
        hook: the hook point's name, with `{layer}` where there is one per layer.
        axes: what the dimensions of its value are.
    """

    name: str
    hook: str
    axes: tuple[str, ...]

    @property
    def layered(self) -> bool:
        """Whether every layer has one."""
        return "{layer}" in self.hook

    @property
    def rows(self) -> int:
        """The dimension whose entries `hook.ctx["rows"]` names."""
        return self.axes.index("video" if "video" in self.axes else "pos")

    @property
    def heads(self) -> int | None:
        """The dimension of heads; None where heads are not told apart."""
        return self.axes.index("head") if "head" in self.axes else None

    @property
    def square(self) -> bool:
        """Whether it holds a value for every key as well."""
        return "key" in self.axes

    @property
    def video(self) -> bool:
        """Whether it holds video tokens only."""
        return "video" in self.axes

    def names(self, layers: Iterable[int]) -> list[str]:
        """The hook points of these layers; the one there is, where it belongs to no layer."""
        return [self.hook.format(layer=layer) for layer in layers] if self.layered else [self.hook]


def _sites() -> dict[str, Site]:
    streams = ["hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_in", "hook_mlp_out"]
    streams += ["mlp.hook_pre", "mlp.hook_pre_linear", "mlp.hook_post"]
    streams += ["ln1.hook_scale", "ln1.hook_normalized", "ln2.hook_scale", "ln2.hook_normalized"]
    heads = ["z", "q", "k", "v", "rot_q", "rot_k", "result", "attn_in", "q_input", "k_input", "v_input"]
    found = {}
    for hook in streams:
        module, _, short = hook.rpartition("hook_")
        name = {"": short, "mlp.": f"mlp_{short}"}.get(module, f"{short}{module[2:3]}")
        found[name] = Site(name, "blocks.{layer}." + hook, STREAM)
    for name in heads:
        found[name] = Site(name, "blocks.{layer}.attn.hook_" + name, HEADS)
    for name in ("pattern", "attn_scores"):
        found[name] = Site(name, "blocks.{layer}.attn.hook_" + name, SQUARE)
    found["video_tokens"] = Site("video_tokens", "frontend.hook_video_tokens", VIDEO)
    return found


SITES: dict[str, Site] = _sites()
"""Sites by name: `resid_pre`, `resid_mid`, `resid_post`, `attn_out`, `mlp_out`, `z`, `q`, `k`, `v`, `pattern`,
`video_tokens`, and what lies between them."""

_ALIASES = {"value": "v", "values": "v", "key": "k", "query": "q", "head z": "z", "video tokens": "video_tokens"}
_NO_POSITIONS = {
    "video_features": "its value is [batch frame patch d_vision], from before the projector makes tokens of patches: "
    "patch 'video_tokens', what the projector gives",
    "mask": "its value says who may attend to whom, the same in either run: cut attention with a Knockout, or patch "
    "'pattern'",
}


def named_site(name: str) -> Site:
    """The site of a name: "z", or the hook point's own, "attn.hook_z" or "blocks.{layer}.attn.hook_z".

    Raises:
        ModelError: there is no such hook point; the message lists near ones.
        VideolensError: there is, but it has no positions to patch.
    """
    for site in SITES.values():
        if name in (site.name, site.hook, site.hook.removeprefix("blocks.{layer}.")):
            return site
    if str(name) in _ALIASES:
        return SITES[_ALIASES[name]]
    for short, why in _NO_POSITIONS.items():
        if str(name).endswith(short):
            raise VideolensError(f"{name!r} cannot be patched position by position: {why}")
    full = [site.hook.removeprefix("blocks.{layer}.") for site in SITES.values()]
    raise ModelError(near(name, [*SITES, *full], kind="hook point to patch", where=", ".join(map(repr, SITES))))
