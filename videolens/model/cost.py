"""What computing costs: floating-point operations and bytes, counted from shapes.

A multiplication and an addition are two operations. Attention is counted over visible pairs only: what a perfect kernel
would do. Norms, rotations and activations are left out of the operations (they are below one per cent), not out of the
bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cost:
    """Costs of one model.

    Attributes:
        d_model, d_mlp, d_vocab: widths.
        d_query, d_key: width of all query heads, of all key heads.
        itemsize: bytes of a number.
    """

    d_model: int
    d_mlp: int
    d_vocab: int
    d_query: int
    d_key: int
    itemsize: int

    @classmethod
    def of(cls, cfg: Any) -> Cost:
        """From a model's configuration."""
        d_query, d_key = (n * cfg.d_head for n in (cfg.n_heads, cfg.n_key_value_heads or cfg.n_heads))
        return cls(cfg.d_model, cfg.d_mlp, cfg.d_vocab, d_query, d_key, cfg.dtype.itemsize)

    def layer(self, rows: int, queries: int, pairs: int) -> int:
        """Operations of one layer: keys and values of `rows`, everything else for `queries`, attention over `pairs`."""
        keys = 2 * rows * self.d_model * 2 * self.d_key
        rest = 2 * queries * self.d_model * (2 * self.d_query + 3 * self.d_mlp)
        return keys + rest + 4 * pairs * self.d_query

    def read_out(self, rows: int) -> int:
        """Operations of the unembedding."""
        return 2 * rows * self.d_model * self.d_vocab

    def forward(self, n_pos: int, n_layers: int) -> int:
        """Operations of a plain forward that reads out one row."""
        return self.rows_alone(n_pos, n_layers) + self.read_out(1)

    def rows_alone(self, rows: int, n_layers: int) -> int:
        """Operations of the first rows of a prompt, by themselves, in all layers."""
        return n_layers * self.layer(rows, rows, rows * (rows + 1) // 2)

    def stream(self, rows: int) -> int:
        """Bytes of the residual stream of some rows."""
        return rows * self.d_model * self.itemsize

    def keys_values(self, rows: int) -> int:
        """Bytes of the keys and values of some rows in one layer."""
        return 2 * rows * self.d_key * self.itemsize

    def gates(self, rows: int, keys: int) -> int:
        """Bytes of the gates of some rows, which are float32: two copies, their logarithms, and these under a mask."""
        return rows * keys * 4 * 4

    def clean_run(self, n_pos: int, n_layers: int) -> int:
        """Bytes of a clean run that is kept: the residual between all layers, and all keys and values."""
        return (n_layers + 1) * self.stream(n_pos) + n_layers * self.keys_values(n_pos)

    def working(self, rows: int) -> int:
        """Bytes that a layer needs for some rows, at its peak, besides what enters it.

        The peak is either the attention or the MLP. In attention: the normalised stream, queries, keys and values,
        their rotated copies with one temporary, and the heads' result; in the MLP: the stream before it, the normalised
        stream, and three tensors of the MLP's width.
        """
        wide = max(self.itemsize, 4)
        attention = self.d_model * self.itemsize + (4 * self.d_query + 3 * self.d_key) * self.itemsize
        mlp = self.d_model * (2 * self.itemsize) + 3 * self.d_mlp * self.itemsize
        norm = 3 * self.d_model * wide
        return rows * max(attention, mlp, norm)
