"""How every command behaves: one clear line and a non-zero status for bad input."""

import argparse
import errno
import logging
import sys
from collections.abc import Callable
from typing import NoReturn

from ..errors import UserError
from ..pruning.errors import PruningError

INTERRUPTED = 130  # the shell's status for a command that Ctrl-C ended


def run_command(main: Callable[[], None]) -> NoReturn:
    """Run a command's `main` and exit; bad input is one line on standard error, without a trace."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for chatty in ("httpx", "datasets", "huggingface_hub", "filelock", "fontTools", "matplotlib"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        main()
    except (UserError, PruningError) as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" while writing {error.filename}" if error.filename else ""
        sys.exit(f"error: no space left on device{where}; free some and run the command again")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(0)


def parser(description: str | None) -> argparse.ArgumentParser:
    """An argument parser that shows a module's docstring as its help."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
