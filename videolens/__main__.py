"""The command line: `videolens demo`, `flow`, `accuracy`, `run`, `check`, `data`, each a file of `videolens/commands/`,
and every other experiment by its name (`commands/experiment.py`). Heavy packages are imported by the command that
runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from videolens._version import __version__
from videolens.commands import accuracy, check, data, demo, experiment, flow, run
from videolens.commands.shared import failed
from videolens.errors import VideolensError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 if it went well, 1 if a check failed, 2 with one clear line on standard error if asked for
    something impossible."""
    options = parser().parse_args(arguments)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        return int(options.run(options) or 0)
    except VideolensError as error:
        return failed(str(error))
    except OSError as error:
        return failed(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    except KeyboardInterrupt:
        return failed("interrupted", code=130)


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(
        prog="videolens", description="See where information flows in a VideoLLM, and cut what does not matter."
    )
    top.add_argument("--version", action="version", version=f"videolens {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in (demo, flow, accuracy, run, check, data, experiment):
        command.add(commands)
    return top


if __name__ == "__main__":
    sys.exit(main())
