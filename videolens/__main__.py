"""The command line: `videolens demo`, `flow`, `explore`, `accuracy`, `run`, `plan`, `check`, `models`, `datasets`,
`data`, each a file of `videolens/commands/`, and every other experiment by its name (`commands/experiment.py`). Heavy
packages are imported by the command that runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from videolens._version import __version__
from videolens.commands import accuracy, check, data, datasets, demo, experiment, explore, flow, models, plan, run
from videolens.commands.shared import failed
from videolens.errors import VideolensError

PASSIVE = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
"""How threads wait: for OpenMP in general, GNU's, and Intel's."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 if it went well, 1 if a check failed, 2 with one clear line on standard error if asked for
    something impossible."""
    options = parser().parse_args(arguments)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    _wait_passively()
    try:
        return int(options.run(options) or 0)
    except VideolensError as error:
        return failed(str(error))
    except OSError as error:
        return failed(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    except KeyboardInterrupt:
        return failed("interrupted", code=130)


def _wait_passively() -> None:
    """Have torch's threads sleep while they wait for one another, in a process that has not loaded it yet.

    By default they wait in a loop. A sweep is thousands of small operations, and where another process has a core to
    itself each of them then waits for a thread whose turn does not come: see "Threads" in docs/engine.md. What the user
    has set stays. A process that has torch already is somebody's own, and would not read this any more.
    """
    if "torch" not in sys.modules:
        for name, value in PASSIVE.items():
            os.environ.setdefault(name, value)


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(
        prog="videolens", description="See where information flows in a VideoLLM, and cut what does not matter."
    )
    top.add_argument("--version", action="version", version=f"videolens {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in (demo, flow, explore, accuracy, run, plan, check, models, datasets, data, experiment):
        command.add(commands)
    return top


if __name__ == "__main__":
    sys.exit(main())
