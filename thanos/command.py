"""How every command behaves: one clear line and a non-zero status for bad input."""

import argparse
import logging
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from .errors import UserError, is_full_disk
from .identity import Place
from .pruning.errors import PruningError

_CHATTY = ("httpx", "httpx2", "datasets", "huggingface_hub", "filelock", "fontTools", "matplotlib")
INTERRUPTED = 130  # the shell's status for a command that Ctrl-C ended


def run_command(main: Callable[[], None]) -> NoReturn:
    """Run a command's `main` and exit; bad input is one line on standard error, without a trace."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        main()
    except (UserError, PruningError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        if not is_full_disk(error):
            raise
        named = getattr(error, "filename", None)
        where = f" while writing {named}" if named else ""
        sys.exit(f"error: no space left on device{where}; free some and run the command again")
    sys.exit(0)


def parser(description: str | None, **options: Any) -> argparse.ArgumentParser:
    """An argument parser that shows a module's docstring as its help."""
    return argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        **options,
    )


def stage_parser(description: str | None) -> argparse.ArgumentParser:
    """The parser of a stage that makes what a spec says."""
    arguments = parser(description)
    arguments.add_argument("spec", help="JSON, or a result made of it, whose spec is taken")
    arguments.add_argument(
        "--place",
        type=Place.parse,
        default=Place(),
        help="JSON: device, mirror, budgets, batch sizes",
    )
    return arguments
