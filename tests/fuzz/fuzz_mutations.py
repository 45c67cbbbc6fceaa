"""Damage to files, by chance: of what JSON and YAML say, of how they are spelled, and of bytes."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

JUNK: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 7, -99, 10**9, 2**31, 2**63, -(2**63), 10**30, 10**400, 0.0, 0.5, -1.5, 1e308,
    float("nan"), float("inf"), -float("inf"), "", "x", " ", "0", "é" * 300, "\x00", "\ud800", "../../etc/passwd",
    "/etc/passwd", "file:/etc/passwd", "concat:a|b", [], {}, [[]], [None], [1, 2], ["x"] * 30, {"a": {}}, {"": None},
    [[[[1]]]], {"height": 0, "width": 0}, {"shortest_edge": 10**9}, list(range(40)),
)  # fmt: skip
BYTES = (*(bytes([one]) for one in b'\x00\xff{["\n}],-'), b"9" * 30, b"\xed\xa0\x80", b"&a *a", b"!!int x")


def deep(rng: Random) -> Any:
    """Something that is nested deeply."""
    found: Any = 1
    for _ in range(rng.choice([30, 70, 300])):
        found = [found] if rng.random() < 0.5 else {"a": found}
    return found


def paths(content: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands, each as the keys that lead there."""
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [at, *(path for key, value in inner for path in paths(value, (*at, key)))]


def change(content: Any, rng: Random) -> tuple[Any, str]:
    """The content with one thing in it replaced, left out, put there twice or exchanged; and what that was."""
    content = copy.deepcopy(content)
    places = paths(content)
    shallow = [path for path in places if len(path) == 1] if rng.random() < 0.4 else []
    path = rng.choice(shallow or places)
    value = deep(rng) if rng.random() < 0.05 else copy.deepcopy(rng.choice(JUNK))
    if not path:
        return value, f"the whole is {value!r:.60}"
    parent = content
    for key in path[:-1]:
        parent = parent[key]
    kind = rng.random()
    if kind < 0.15:
        del parent[path[-1]]
        return content, f"{path} left out"
    if kind < 0.25 and isinstance(parent[path[-1]], (int, float)) and not isinstance(parent[path[-1]], bool):
        value = parent[path[-1]] * rng.choice([-1, 2, 0.5, 1000, 10**6, 0])
    elif kind < 0.3:
        other = content
        for key in rng.choice(places):
            other = other[key]
        value = copy.deepcopy(other)
    parent[path[-1]] = value
    return content, f"{path} is {value!r:.60}"


def spoil(content: bytes, rng: Random, most: int | None = None) -> tuple[bytes, str]:
    """Bytes cut, overwritten, put in or doubled, up to place `most`; and what was done."""
    end = min(len(content), most or len(content))
    at = rng.randrange(end + 1)
    kind = rng.choice(["cut", "flip", "flip", "overwrite", "put in", "double", "leave out"])
    if kind == "cut":
        return content[:at], f"cut at {at}"
    some = rng.choice(BYTES) if rng.random() < 0.5 else rng.randbytes(rng.randint(1, 8))
    if kind == "flip":
        found = bytearray(content)
        for _ in range(rng.choice([1, 1, 2, 10, 50])):
            if end:
                found[rng.randrange(end)] ^= 1 << rng.randrange(8)
        return bytes(found), "bits flipped"
    if kind == "overwrite":
        return content[:at] + some + content[at + len(some) :], f"{some!r} at {at}"
    if kind == "put in":
        return content[:at] + some * rng.choice([1, 1, 50]) + content[at:], f"{some!r} put in at {at}"
    stop = min(at + rng.randint(1, 200), len(content))
    if kind == "double":
        return content[:stop] + content[at:], f"bytes {at} to {stop} twice"
    return content[:at] + content[stop:], f"bytes {at} to {stop} left out"


def damage(
    file: Path, rng: Random, *, dumps: Callable[[Any], str] = json.dumps, load: Callable[[str], Any] = json.loads
) -> str:
    """Damage a file of plain data: mostly what it says, sometimes its bytes, sometimes what it is."""
    kind = rng.random()
    if kind < 0.03:
        file.unlink()
        if rng.random() < 0.5:
            file.symlink_to("nowhere")
            return "a link to nothing"
        file.mkdir()
        return "a folder"
    if kind < 0.25:
        content, said = spoil(file.read_bytes(), rng)
        file.write_bytes(content)
        return said
    content, said = load(file.read_text()), ""
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        try:
            content, one = change(content, rng)
        except (RecursionError, OverflowError):  # what one change has nested or grown, another cannot
            break
        said += f"; {one}"
    file.write_text(dumps(content), errors="surrogatepass")
    return said[2:]


def header(file: Path, rng: Random) -> str:
    """Damage the header of a safetensors file, or its bytes up to a little behind it."""
    whole = file.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    if rng.random() < 0.3:
        content, said = spoil(whole, rng, length + 50)
    else:
        entries, said = change(json.loads(whole[8 : 8 + length]), rng)
        text = json.dumps(entries).encode()
        stated = len(text) if rng.random() < 0.9 else rng.choice([0, 2**40, 2**63, len(text) + 1])
        content = stated.to_bytes(8, "little") + text + whole[8 + length :]
    file.write_bytes(content)
    return said


def text(rng: Random) -> str:
    """Words with odd characters among them."""
    odd = ["\ud800", "\x00", "‮", "é", "𝔘", "<image>", "<video>", "</s>", "{", "}", "{stem}", "\n", "\u200b", "a" * 50]
    return "".join(
        rng.choice(odd) if rng.random() < 0.4 else rng.choice("abc Which? ") for _ in range(rng.randint(0, 20))
    )
