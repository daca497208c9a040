"""Run a command that knows the rehearsal's hub alone.

    PYTHONPATH=tests python -m rehearsal <folder> -- snakemake mirror --config suite=paper mirror=m

The hub is laid out in <folder> if that is empty, and serves while the command runs.
"""

import subprocess
import sys
from pathlib import Path

from .layout import environment, hub_of, lay_out

if __name__ == "__main__":
    place, separator, *command = sys.argv[1:]
    if separator != "--" or not command:
        sys.exit(__doc__)
    lay_out(Path(place))
    with hub_of(Path(place)) as hub:
        sys.exit(subprocess.run(command, env=environment(hub, Path(place))).returncode)
