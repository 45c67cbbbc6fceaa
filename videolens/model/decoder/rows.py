"""Which rows a forward computes and what they may look at: the one idea behind prefill, decoding and resumed runs.

A forward computes some *rows* of a prompt, each at an absolute position. Their *keys* are the rows themselves and,
before them, the positions whose keys and values an earlier forward has left in a `KeyValues`. Prefill has no earlier
ones, decoding has one row, a resumed run has the rows from the first that an intervention can change. In a last layer,
where the other rows are not needed any more, only the rows *asked* for have queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from videolens.errors import ModelError
from videolens.model.decoder.kernels import KeyValuePiece
from videolens.model.decoder.views import HeadView, views_on
from videolens.model.decoder.visibility import Visible
from videolens.prompt.prompt import Prompt

Where = str | int | Sequence[int] | Int64[Tensor, " row"]
"""Some rows of a prompt: a selection such as "last" or "stem | options", or positions."""


@dataclass
class KeyValues:
    """Rotated keys and values of earlier positions, per layer.

    Attributes:
        layers: layer → (keys, values), each [batch past n_kv d_head]; a layer that nothing has reached is missing.
        growing: whether `join` keeps what it is given (decoding) or only reads (a resumed run).
    """

    layers: dict[int, KeyValuePiece] = field(default_factory=dict)
    growing: bool = True

    def join(
        self, layer: int, k: Float[Tensor, "batch row n_kv d_head"], v: Float[Tensor, "batch row n_kv d_head"]
    ) -> list[KeyValuePiece]:
        """Keys and values of all positions: the stored ones, then these. Read-only ones are not copied together."""
        if not self.growing:
            return [self.layers[layer], (k, v)] if layer in self.layers else [(k, v)]
        if layer in self.layers:
            past_k, past_v = (past.expand(k.shape[0], -1, -1, -1) for past in self.layers[layer])
            k, v = torch.cat([past_k, k], dim=1), torch.cat([past_v, v], dim=1)
        self.layers[layer] = (k, v)
        return [(k, v)]

    def before(self, row: int) -> KeyValues:
        """A read-only view of the positions before `row`, for a run that resumes there."""
        if row == 0:
            return KeyValues({}, growing=False)
        return KeyValues({layer: (k[:, :row], v[:, :row]) for layer, (k, v) in self.layers.items()}, growing=False)


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of one forward.

    Attributes:
        rows: absolute positions of the rows, ascending.
        keys: absolute positions of the keys: the earlier ones, then the rows.
        cos, sin: rotary tables of the rows.
        past: keys and values of the earlier positions; None where there are none and none are to be kept.
        asked: which of the rows (as indices) are needed after this layer; None: all.
        watched: which of the rows (as indices) have scores and patterns, if hook functions see these; None: all.
        views: what each part of the batch sees, where that is less than causality allows; None: no limits.
        deepstack: what is added to the residual stream after layer 0, 1, … of a model that has it, at all positions of
            the prompt; one for all prompts or one for each.
    """

    rows: Int64[Tensor, " row"]
    keys: Int64[Tensor, " key"]
    cos: Float[Tensor, "table row d_rotary"]
    sin: Float[Tensor, "table row d_rotary"]
    past: KeyValues | None = None
    asked: Int64[Tensor, " asked"] | None = None
    watched: Int64[Tensor, " watched"] | None = None
    views: Sequence[HeadView] | None = None
    deepstack: tuple[Float[Tensor, "batch_or_1 pos d_model"], ...] = ()

    def only(self, chosen: Int64[Tensor, " chosen"] | slice) -> Rows:
        """Some of the rows, by index, with the same keys."""
        return Rows(
            rows=self.rows[chosen],
            keys=self.keys,
            cos=self.cos[:, chosen],
            sin=self.sin[:, chosen],
            past=self.past,
            deepstack=self.deepstack,
        )

    def added_after(self, layer: int) -> Float[Tensor, "batch_or_1 row d_model"] | None:
        """Deepstack features of these rows: what is added after a layer; None: nothing."""
        if layer >= len(self.deepstack):
            return None
        whole = self.deepstack[layer]
        return whole if len(self.rows) == whole.shape[1] else whole[:, self.rows]

    @property
    def queries(self) -> Rows:
        """The rows that are needed after this layer."""
        # not itself cached: an object that holds itself, and keys and values with it, would wait for the collector
        return self if self.asked is None else self._asked

    @cached_property
    def _asked(self) -> Rows:
        assert self.asked is not None
        return replace(self.only(self.asked), views=self.views)

    def on(self, device: torch.device) -> Rows:
        """The same rows on another device, for the layers that lie there; all of them share what is worked out once.

        Keys and values of earlier positions are each layer's own, and are where the layer is.
        """
        if self.rows.device == device:
            return self
        if device not in self._elsewhere:
            self._elsewhere[device] = replace(
                self,
                rows=self.rows.to(device),
                keys=self.keys.to(device),
                cos=self.cos.to(device),
                sin=self.sin.to(device),
                asked=None if self.asked is None else self.asked.to(device),
                watched=None if self.watched is None else self.watched.to(device),
                views=None if self.views is None else views_on(self.views, device),
                deepstack=tuple(one.to(device) for one in self.deepstack),
            )
        return self._elsewhere[device]

    @cached_property
    def _elsewhere(self) -> dict[torch.device, Rows]:
        return {}

    @property
    def last(self) -> Rows:
        """The newest row alone."""
        return self.only(slice(-1, None))

    @cached_property
    def causal(self) -> Bool[Tensor, "1 1 row key"]:
        """True where a row may attend. Shared by all layers: clone before anybody may edit it."""
        return (self.rows[:, None] >= self.keys[None, :])[None, None]

    @cached_property
    def open(self) -> tuple[HeadView, ...]:
        """What the rows see when nothing but causality limits them."""
        return ((slice(None), None, Visible.causal(self.rows, self.keys)),)

    @cached_property
    def known(self) -> list[tuple[Tensor, Sequence[HeadView]]]:
        """Masks met in this forward, each with what it lets rows see: a knockout has the same mask in many layers."""
        return []


def is_listened_to(point: HookPoint) -> bool:
    """Whether a hook point has hook functions."""
    return bool(point._forward_hooks or point._backward_hooks or point._forward_pre_hooks)


def fire(point: HookPoint, value: Tensor, at: Rows | None, *, may_grow: bool = False) -> Tensor:
    """Pass a tensor through a hook point; its hook functions can read which rows and keys it holds.

    `hook.ctx["rows"]` and `hook.ctx["keys"]` are absolute positions. Costs nothing without hook functions. A value that
    may grow can come back as one for every prompt or head, or of another dtype: who asked for it checks it.

    Raises:
        ModelError: a function gives something else than a tensor of the same shape and dtype.
    """
    if not is_listened_to(point):
        return value
    if at is not None:
        point.ctx["rows"], point.ctx["keys"] = at.rows, at.keys
    given = point(value)
    if isinstance(given, Tensor) and may_grow:
        return given
    if not (isinstance(given, Tensor) and given.dtype == value.dtype and given.shape == value.shape):
        found = (
            f"{given.dtype} {list(given.shape)}" if isinstance(given, Tensor) else " ".join(f"{given!r:.60}".split())
        )
        raise ModelError(
            f"a hook function of {point.name} gave {found}, expected a tensor as it got one, {value.dtype} "
            f"{list(value.shape)}: return one like it, or None where nothing changes"
        )
    return given


def positions_of(prompt: Prompt | Tensor, rows: Where) -> Int64[Tensor, " row"]:
    """Positions, sorted and each once, of a selection or of positions as they are.

    Raises:
        SelectionError: the prompt has no such selection.
        ModelError: none at all, a position outside the prompt, or a selection of ids, which have no token map.
    """
    if isinstance(rows, str):
        if not isinstance(prompt, Prompt):
            raise ModelError(f"rows={rows!r} is a selection of a Prompt; of token ids, give positions")
        found = prompt.tokens[rows]
    else:
        try:
            found = torch.unique(torch.as_tensor(rows).reshape(-1))
        except (TypeError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"rows={rows!r} are no positions: give whole numbers, or selections in one name such as 'stem | last'"
            ) from error
    n_pos = prompt.shape[1]
    if found.numel() == 0 or found.is_floating_point() or found.dtype == torch.bool:
        raise ModelError(f"rows={rows!r} names no rows: give a selection with tokens in it, or positions")
    if not 0 <= int(found.min()) <= int(found.max()) < n_pos:
        raise ModelError(f"rows={rows!r} reach outside the prompt of {n_pos} tokens: its rows are 0 … {n_pos - 1}")
    return found.to(torch.int64)
