"""Collect the results of a suite's runs into one tidy table.

python -m thanos.stages.collect runs.json --output results.csv --layers … --windows … --origin …

Results that were made by different code, libraries, kinds of device or dtypes are refused.
"""

import time
from pathlib import Path

from ..artifacts import write_checked_text, write_json
from ..command import parser, run_command
from ..identity.fingerprints import stage_fingerprint
from ..provenance import provenance
from ..reporting.collecting import collect
from ..reporting.conditions import Conditions
from ..reporting.frame import to_csv
from ..reporting.run_files import read_listing


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("runs", type=Path, help="the suite's list, of thanos.stages.list_runs")
    arguments.add_argument("--output", type=Path, required=True)
    arguments.add_argument("--layers", type=Path, required=True, help="records of all layers")
    arguments.add_argument("--windows", type=Path, required=True, help="the loss of every window")
    arguments.add_argument("--origin", type=Path, required=True, help="what made the results")
    given = arguments.parse_args()
    started, conditions = time.time(), Conditions()
    collected = collect(map(conditions.add, read_listing(given.runs).read()))
    conditions.check()
    write_checked_text(given.output, to_csv(collected.results))
    write_checked_text(given.layers, to_csv(collected.layers))
    write_checked_text(given.windows, to_csv(collected.windows))
    made = provenance(started, stage_fingerprint("collect"))
    facts = {"origin": conditions.origin(), "results_of": conditions.results_of()}
    write_json(given.origin, {**facts, "provenance": made})


if __name__ == "__main__":
    run_command(main)
