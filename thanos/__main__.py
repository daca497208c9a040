"""`python -m thanos`: one run by hand, or `pack` and `unpack` for checkpoint folders."""

import sys

from .command import run_command

# Imported when chosen: a configuration is checked without what packing needs, and the reverse.
if sys.argv[1:2] in (["pack"], ["unpack"]):
    from .stages.pack import main
else:
    from .stages.run import main

run_command(main)
