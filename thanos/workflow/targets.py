"""What Snakemake is asked to make: a target that nothing makes is refused by name, in one line.

Snakemake would say it as well, but neither what there is nor what may have been meant.
"""

import difflib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .. import layout
from ..errors import UserError
from .catalog import Catalog

# By the wildcard that names it in rules/common.smk.
_KINDS = {
    "model": layout.MODELS,
    "calibration": layout.CALIBRATION,
    "windows": layout.WINDOWS,
    "pruned": layout.PRUNED,
    "evaluation": layout.EVALUATIONS,
    "latency": layout.LATENCIES,
}


def asked_targets(arguments: Sequence[str]) -> list[str]:
    """The rules and files that a command line of Snakemake names; none of another program's.

    Args:
        arguments: of the process, the program's name first.
    """
    if "snakemake" not in Path(arguments[0]).parts[-2:]:
        return []
    from snakemake.cli import get_argument_parser

    given, _ = get_argument_parser().parse_known_args(arguments[1:])
    return [str(target) for target in given.targets]


def check_targets(targets: Iterable[str], rules: Iterable[Any], catalog: Catalog) -> None:
    """Refuse what no rule makes and what no suite has.

    Args:
        targets: names of rules, or files.
        rules: of the workflow.
        catalog: of the suites.

    Raises:
        UserError: nothing makes a target.
    """
    rules = list(rules)
    names = [rule.name for rule in rules if not rule.has_wildcards()]
    for target in targets:
        if target in (rule.name for rule in rules):
            continue
        file = target if Path(target).is_absolute() else os.path.relpath(target)
        found = [match for rule in rules for made in rule.products() if (match := made.match(file))]
        if not found:
            near = difflib.get_close_matches(target, names, n=1)
            meant = f" (did you mean {near[0]}?)" if near else ""
            raise UserError(
                f"nothing makes {target}{meant}; targets are {', '.join(sorted(names))}"
            )
        for wildcard, name in found[0].groupdict().items():
            if wildcard in _KINDS:
                catalog.thing(_KINDS[wildcard], name)
