"""One module, one command, one rule: each reads a spec or results, and writes files.

`python -m thanos.stages.<stage> --help` tells a stage's arguments; the rules under `rules/` call
exactly these commands, so any job can be repeated by hand from the files it left.
"""
