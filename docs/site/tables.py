"""Pages that say what the code says: commands with their options, experiments with theirs.

    python docs/site/tables.py

writes docs/commands.md and docs/experiments.md anew; tests/test_documented.py says when they are not as the code is.
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from videolens.__main__ import parser
from videolens.experiments import declarations, in_runs
from videolens.runs.checking import fields_of

DOCS = Path(__file__).resolve().parents[1]
_MADE = "<!-- Made by `python docs/site/tables.py` from the code: change it there. -->"

_COMMANDS = f"""# Commands

{_MADE}

`videolens COMMAND --help` says the same of one command. A command ends with 0 if all went well; with 1 if something
that it was to check or to make did not come out; with 2, and one line on standard error, if it was asked for something
impossible; with 130 if it was interrupted.
`python -m videolens` is the same as `videolens`."""

_EXPERIMENT = """## Experiments as commands

Each is a [run](runs.md) with that one experiment, in a directory of its own. [Their options](experiments.md) stand
after `--set`."""

_EXPERIMENTS = f"""# Experiments and their options

{_MADE}

What stands under `experiments:` in a [run's config](runs.md#the-config), and after `--set` of
[its command](commands.md#experiments-as-commands). The functions of Python take the same by keyword. In a config the
seed is that of the run, unless an experiment has its own."""


def commands_page() -> str:
    """docs/commands.md: every command, its example, and its options; those of one form share a table."""
    [commands] = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    about = {choice.dest: choice.help or "" for choice in commands._choices_actions}
    experiments = [name for name in about if name in in_runs() and "--set" in commands.choices[name].format_usage()]
    pieces = [_COMMANDS]
    for name in (each for each in about if each not in experiments):
        one = commands.choices[name]
        pieces.append(f"## videolens {name}\n\n{one.description or _sentence(about[name])}")
        pieces += _inner(one) or [_example(one), _options(one)]
    [table] = {_options(commands.choices[name]) for name in experiments}
    pieces += [
        _EXPERIMENT,
        _names_table(experiments, about, commands),
        _example(commands.choices[experiments[0]]),
        table,
    ]
    return "\n\n".join(piece for piece in pieces if piece) + "\n"


def _names_table(names: list[str], about: dict[str, str], commands: Any) -> str:
    """Commands of one form: what each is called, and what it asks."""
    rows = []
    for name in names:
        also = sorted(other for other, one in commands.choices.items() if one is commands.choices[name])
        rows.append(f"| {', '.join(f'`{each}`' for each in also)} | {_sentence(about[name])} |")
    return "\n".join(["| command | what it asks |", "|---|---|", *rows])


def _inner(command: argparse.ArgumentParser) -> list[str]:
    """The commands within a command, such as `videolens data shapes`."""
    kinds = [action for action in command._actions if isinstance(action, argparse._SubParsersAction)]
    return [
        piece
        for kind in kinds
        for name, one in kind.choices.items()
        for piece in (f"**{command.prog} {name}.** {one.description}", _example(one), _options(one))
    ]


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.?')}{'?' if text.endswith('?') else '.'}".replace("%%", "%")


def _example(command: argparse.ArgumentParser) -> str:
    lines = "\n".join(line.removeprefix("  ") for line in (command.epilog or "").splitlines()[1:])
    return f"```bash\n{lines}\n```"


def _options(command: argparse.ArgumentParser) -> str:
    """A table of what a command takes."""
    rows = []
    for action in command._actions:
        if isinstance(action, (argparse._HelpAction, argparse._SubParsersAction)):
            continue
        given = "" if action.nargs == 0 else f" {_value(action)}"
        name = f"{action.option_strings[-1]}{given}" if action.option_strings else _value(action)
        said = (action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%")
        required = "; required" if action.required and action.option_strings else ""
        rows.append(f"| `{name}` | {_cell(said)}{required} |")
    return "\n".join(["| option | meaning |", "|---|---|", *rows]) if rows else ""


def _value(action: argparse.Action) -> str:
    if action.choices:
        return "{" + ",".join(map(str, action.choices)) + "}"
    return str(action.metavar or action.dest.upper())


def experiments_page() -> str:
    """docs/experiments.md: every experiment, its function, and the options that a config can give."""
    pieces = [_EXPERIMENTS]
    for name, declaration in declarations().items():
        public = [each for each, module in declaration.public.items() if module == "experiment" and each[0].islower()]
        function = getattr(declaration.module("experiment"), public[0])
        about = (inspect.getdoc(function) or "").partition("\n\n")[0].replace("\n", " ")
        result = f"vl.{declaration.result}" if declaration.result in declaration.public else declaration.result
        pieces.append(f"## {name}\n\n{about} `vl.{public[0]}` gives a result of the class `{result}`.")
        if declaration.experiment is None:
            pieces.append("It is not asked question by question, so it has no place in a config.")
            continue
        kind = declaration.experiment_class
        said = meanings(function) | meanings(kind)
        rows = [
            f"| `{option}` | {_default(field)} | {_cell(said.get(option, ''))} |"
            for option, field in fields_of(kind, "model").model_fields.items()
        ]
        pieces.append("\n".join(["| option | default | meaning |", "|---|---|---|", *rows]))
    return "\n\n".join(pieces) + "\n"


def meanings(documented: Any) -> dict[str, str]:
    """What a docstring says of every argument or attribute, in one line."""
    found: dict[str, str] = {}
    for section in re.split(r"^(?=\w+:$)", inspect.getdoc(documented) or "", flags=re.MULTILINE):
        if section.startswith(("Args:\n", "Attributes:\n")):
            for item in re.split(r"^    (?=[\w*])", section, flags=re.MULTILINE)[1:]:
                names, _, text = item.partition(": ")
                found |= {name.strip(): " ".join(text.split()) for name in names.split(",")}
    return found


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, tuple) and len(value) > 4:
        return f"{len(value)} of them"
    return f"`{_cell(repr(list(value) if isinstance(value, tuple) else value))}`"


def _cell(text: str) -> str:
    """Text as it stands in a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def written() -> Iterator[tuple[Path, str]]:
    """The pages, and what they are to hold."""
    yield DOCS / "commands.md", commands_page()
    yield DOCS / "experiments.md", experiments_page()


if __name__ == "__main__":
    for path, text in written():
        path.write_text(text, encoding="utf-8")
