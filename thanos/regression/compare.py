"""Judge what was measured by the golden values, and by what must hold within one run."""

from collections.abc import Iterator
from dataclasses import dataclass

from thanos.regression.golden import Golden, time_ratios
from thanos.regression.measured import Measured, Value

OK, NEW = "ok", "new"
REGRESSED, MOVED, MISSING, BROKEN = "REGRESSED", "MOVED", "MISSING", "BROKEN"
NOT_COMPARABLE = "not comparable"
RED = (REGRESSED, MOVED, MISSING, BROKEN)
_HIGHER_IS_WORSE = {"perplexity": True, "recovery": False, "accuracy": False, "relative": True}


@dataclass(frozen=True)
class Check:
    """One line of the comparison."""

    cell: str
    metric: str
    old: Value | None
    new: Value | None
    tolerance: str
    verdict: str
    reason: str = ""  # of the tolerance


def compare(golden: Golden, measured: Measured) -> tuple[list[Check], list[str]]:
    """All checks, and why golden values are not comparable, if they are not.

    Orderings hold within one run and are judged in any case.
    """
    changes = changed_conditions(golden, measured)
    checks = [*_values(golden, measured), *_times(golden, measured)]
    if changes:
        checks = [
            check if check.verdict == NEW else _not_comparable(check)
            for check in checks
            if check.new is not None
        ]
    return [*checks, *_orderings(golden, measured)], changes


def changed_conditions(golden: Golden, measured: Measured) -> list[str]:
    """What was otherwise when the golden values were accepted, `name: old → new`."""
    old, new = golden.conditions, measured.conditions
    return [
        f"{name}: {old.get(name, 'absent')} → {new.get(name, 'absent')}"
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    ]


def _values(golden: Golden, measured: Measured) -> Iterator[Check]:
    now = {name: cell.metrics for name, cell in measured.cells.items()}
    for cell in {**golden.values, **now}:
        old, new = golden.values.get(cell, {}), now.get(cell, {})
        for metric in {**old, **new}:
            yield _judge(golden, cell, metric, old.get(metric), new.get(metric))


def _times(golden: Golden, measured: Measured) -> Iterator[Check]:
    now = time_ratios(measured, golden.time_ratios)
    for group in {**golden.times, **now}:
        old, new = golden.times.get(group, {}), now.get(group, {})
        for pair in {**old, **new}:
            cell = " ".join(group.replace("*", "").split())
            yield _judge(golden, cell, f"time ratio {pair}", old.get(pair), new.get(pair))


def _judge(golden: Golden, cell: str, metric: str, old: Value | None, new: Value | None) -> Check:
    if old is None or new is None:
        return Check(cell, metric, old, new, "", NEW if old is None else MISSING)
    if isinstance(old, str) or isinstance(new, str):
        return Check(cell, metric, old, new, "equal", OK if old == new else MOVED)
    tolerance = golden.tolerance(metric)
    verdict = OK
    if not tolerance.allows(old, new):
        worse = _HIGHER_IS_WORSE.get(metric.split()[0])
        verdict = REGRESSED if worse is not None and (new > old) == worse else MOVED
    return Check(cell, metric, old, new, str(tolerance), verdict, tolerance.reason)


def _not_comparable(check: Check) -> Check:
    return Check(check.cell, check.metric, check.old, check.new, check.tolerance, NOT_COMPARABLE)


def _orderings(golden: Golden, measured: Measured) -> Iterator[Check]:
    groups: dict[str, dict[str, dict[str, Value]]] = {}
    for cell in measured.cells.values():
        groups.setdefault(cell.group, {})[cell.method] = cell.metrics
    for group, methods in groups.items():
        for better, sign, worse in golden.orderings:
            if better not in methods or worse not in methods:
                continue
            for metric, one in methods[better].items():
                other = methods[worse].get(metric)
                if not metric.startswith("perplexity ") or other is None:
                    continue
                assert isinstance(one, float)
                assert isinstance(other, float)
                holds = one < other or (sign == "<=" and one == other)
                yield Check(
                    " ".join(group.replace("*", "").split()),
                    f"{metric}: {better} {sign} {worse}",
                    None,
                    f"{one:.4f} {'' if holds else 'not '}{sign} {other:.4f}",
                    "in this run",
                    OK if holds else BROKEN,
                )
