"""The one reader of JSON and YAML: what is malformed, endless or not plain is one error, and quick."""

from __future__ import annotations

import ast
import os
import time
from pathlib import Path
from typing import Any

import pytest

import videolens
from videolens.errors import VideolensError
from videolens.reading import Fields, as_path, fields_from, parse_json, parse_yaml, read_json, read_text

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
MERGED = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i}\n  <<: [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1 column 1"),
        ("{", "line 1 column 2"),
        ("[" * 100_000, "nested too deeply"),
        ("[" * 70 + "]" * 70, "nested more than 64 deep"),
        ('{"a": 1, "a": 2}', "'a' stands twice"),
        ("[NaN]", "nan is not finite"),
        ("[1e999]", "inf is not finite"),
        ("[-Infinity]", "-inf is not finite"),
        ("[1" + "0" * 400 + "]", "too large"),
        ("[1" + "0" * 5000 + "]", "digits"),
        ('["\\ud800"]', "surrogates"),
        ('{"\\ud800": 1}', "surrogates"),
    ],
)
def test_json_that_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    path.write_text(text)
    with pytest.raises(VideolensError, match=said) as caught:
        read_json(path, kind=list if text.startswith("[") else dict)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(("text", "kind"), [("[1]", dict), ("{}", list), ("3", dict), ("null", list), ('"a"', dict)])
def test_another_kind_of_json(text: str, kind: type, tmp_path: Path) -> None:
    (tmp_path / "some.json").write_text(text)
    with pytest.raises(VideolensError, match=r"holds an? .*, expected|holds null, expected"):
        read_json(tmp_path / "some.json", kind=kind)


def test_what_is_no_file_of_text(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    (tmp_path / "large").write_text("x" * 101)
    for name, said in (
        ("nothing", "No such file"),
        ("link", "which the link leads to"),
        (".", "no file that can be read"),
        ("pipe", "no file that can be read"),
        ("bytes", "UTF-8"),
        ("large", "101 bytes, and at most 100"),
    ):
        with pytest.raises(VideolensError, match=said):
            read_text(tmp_path / name, most=100)
    with pytest.raises(VideolensError, match="no file that can be read"):
        read_text(Path("/dev/zero"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, "with its aliases written out"),
        (MERGED, "with its aliases written out"),
        ("a: &a [*a]", "holds itself"),
        ("[" * 5000, "nested more than"),
        ("a:\n" + "".join(" " * i + "b:\n" for i in range(1, 200)), "nested more than"),
        ("x" * 300_000, "300000 letters"),
        ("[" + "1," * 50_000 + "]", "parts"),
        ("a: !!int x", "is not YAML"),
        ("a: 2020-99-99", "is not YAML.*month"),
        ("a: !!timestamp x", "is not YAML"),
        ("a: !!float x", "is not YAML"),
        ("a: !!python/object:os.system x", "is not YAML"),
        ("a: !!binary é", "is not YAML"),
        ("a: 1\na: 2", "is there twice"),
        ("? [a]\n: b\n? {c: d}\n: e", "is not YAML"),
        ("a: b: c", "is not YAML"),
        ("a: *nowhere", "undefined alias"),
        ('a: "\\ud800"', "surrogates|not YAML"),
        ("a: \x00", "is not YAML"),
    ],
)
def test_yaml_that_is_refused(text: str, said: str) -> None:
    began = time.process_time()
    with pytest.raises(VideolensError, match=said):
        parse_yaml(text, where="some.yaml")
    assert time.process_time() - began < 5


def test_aliases_and_merges_of_a_usual_size_are_read() -> None:
    text = "a: &a {x: 1, y: [1, 2]}\nb: *a\nc: {<<: *a, x: 2}\nd: .nan\n"
    found = parse_yaml(text, where="some.yaml")
    assert found["b"] == {"x": 1, "y": [1, 2]} and found["c"] == {"x": 2, "y": [1, 2]}
    assert parse_yaml("", where="some.yaml") is None
    assert parse_json('{"a": NaN}', where="some.json", finite=False)["a"] != 0


class _Known(Fields):
    a: int
    b: list[str] | None = None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "'a' is missing"),
        ({"a": "1"}, "here.a: .*'1'"),
        ({"a": 1, "b": 2}, "here.b: .*2"),
        (3, "here: .*3"),
        ({"a": True}, "a"),
    ],
)
def test_fields_of_the_wrong_kind_are_named(given: Any, said: str) -> None:
    with pytest.raises(VideolensError, match=said):
        fields_from(_Known, given, "here")
    assert fields_from(_Known, {"a": 1, "other": object()}, "here").a == 1


@pytest.mark.parametrize("value", [None, 3, b"a", [], "a\0b", "x" * 5000, "\ud800", "~no_such_user_here/a"])
def test_what_is_no_path(value: Any) -> None:
    with pytest.raises(VideolensError, match=r"it is .*give a path"):
        as_path(value, "it")


def test_nothing_else_reads_json_or_yaml() -> None:
    """But for what a library has just written itself."""
    package = Path(videolens.__file__).parent
    own = {"reading.py": {"loads", "parse", "compose", "load"}, "prompt/plain_text.py": {"loads"}}
    readers = {"load", "loads", "safe_load", "load_all", "compose", "parse", "unsafe_load", "full_load"}
    for path in package.rglob("*.py"):
        at = path.relative_to(package).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            of = getattr(getattr(node, "value", None), "id", None)
            if isinstance(node, ast.Attribute) and of in ("json", "yaml") and node.attr in readers:
                assert node.attr in own.get(at, ()), f"{at}:{node.lineno}: read it by videolens/reading.py"
