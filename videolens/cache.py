"""Values that were made last, up to so many bytes: what is costly to make and asked for again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """The values used last, up to `room` bytes in all; the newest one is kept even if it alone is larger.

    Safe to share between threads. A copy, or one that comes out of a pickle, starts empty. Values are handed out as
    they are kept: whoever hands one on to users gives them a copy, since a tensor cannot be made read-only.

    Args:
        room: in bytes.
        size: of a value, in bytes.
    """

    def __init__(self, room: int, size: Callable[[Value], int]) -> None:
        self.room, self.size = room, size
        self._kept: OrderedDict[object, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: object, make: Callable[[], Value]) -> Value:
        """The value kept under `key`, or else the one that `make` gives, which is then kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        value = make()
        with self._lock:
            self._kept[key] = value
            self._kept.move_to_end(key)
            while len(self._kept) > 1 and self._held() > self.room:
                self._kept.popitem(last=False)
        return value

    def clear(self) -> None:
        """Keep nothing of what there is."""
        with self._lock:
            self._kept.clear()

    @property
    def n_bytes(self) -> int:
        """What the kept values take."""
        with self._lock:
            return self._held()

    def __len__(self) -> int:
        return len(self._kept)

    def _held(self) -> int:
        return sum(map(self.size, self._kept.values()))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.room, self.size)
