"""Where activations can be patched: hook points that hold something for every position of a prompt, and positions.

batch: prompts; pos: positions; row, key: queries and keys of attention; head: the heads that the hook point has (keys
and values have fewer where they are grouped); video: video tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from videolens.errors import ModelError, SelectionError, VideolensError, near
from videolens.interventions.numbering import some_numbers
from videolens.prompt.tokens import TokenMap

Places = str | tuple[int, ...] | None
"""A selection by name, positions, or None for all that there are."""

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

    @property
    def grouped(self) -> bool:
        """Whether its heads are those of keys and values, of which there may be fewer."""
        return self.name in ("k", "v", "rot_k", "k_input", "v_input")

    def positions(self, places: Places, tokens: TokenMap) -> Int64[Tensor, " n"]:
        """Positions of a prompt at this site, ascending. None: all that it holds.

        Raises:
            SelectionError: a selection that this prompt does not have, positions outside it, or positions that are not
                video tokens at a site that holds nothing else.
        """
        if places is None:
            return tokens["video" if self.video else "all"]
        if isinstance(places, str):
            chosen = tokens[places]
        else:
            chosen = torch.tensor(places, dtype=torch.int64)
            if len(chosen) and int(chosen[-1]) >= tokens.n_pos:
                raise SelectionError(
                    f"position {int(chosen[-1])} is outside the prompt: its positions are 0 … {tokens.n_pos - 1}"
                )
        if self.video and len(outside := chosen[~torch.isin(chosen, tokens["video"])]):
            at = int(outside[0])
            raise SelectionError(
                f"position {at} ({tokens.roles[at]}) is no video token, and {self.name!r} holds only those: choose "
                "among 'video' and the frames"
            )
        return chosen

    def names(self, layers: Iterable[int]) -> list[str]:
        """The hook points of these layers; the one there is, where it belongs to no layer."""
        return [self.hook.format(layer=layer) for layer in layers] if self.layered else [self.hook]


def _sites() -> dict[str, Site]:
    streams = ["hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_in", "hook_mlp_out"]
    streams += ["mlp.hook_pre", "mlp.hook_pre_linear", "mlp.hook_post"]
    streams += ["hook_deepstack"]  # in the layers of models that have it
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


def as_places(positions: str | Sequence[int] | Tensor | int | None) -> Places:
    """Positions as data: a selection's name as it is, positions sorted, each once.

    A `SelectionError` if there are none, or they are negative or no whole numbers.
    """
    if positions is None or isinstance(positions, str):
        return positions
    try:
        return some_numbers("position", positions)
    except VideolensError as error:
        raise SelectionError(
            f"{error}; or name a selection, 'frame 2', 'stem | last', or one patch of a frame, 'f3 r0 c2'"
        ) from error
