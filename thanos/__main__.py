"""`python -m thanos` is the command `thanos`."""

from .cli import main

main()
