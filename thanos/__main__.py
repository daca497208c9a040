"""`python -m thanos`: one run by hand."""

from .stages.command import run_command
from .stages.run import main

run_command(main)
