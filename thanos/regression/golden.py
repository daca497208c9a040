"""The golden file: values to hold, how closely and why, and which method must be ahead of which."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from thanos.artifacts import write_text
from thanos.errors import UserError
from thanos.regression.measured import Measured, Value

_KEYS = ("conditions", "orderings", "time_ratios", "tolerances", "values", "times")
_KINDS = ("relative", "absolute", "factor")


@dataclass(frozen=True)
class Tolerance:
    """How far a metric may move, in one of three ways, and the reason.

    `relative`: share of the old value; `absolute`: difference; `factor`: of either direction. A
    text must be equal, whatever the tolerance.
    """

    kind: str
    limit: float
    reason: str

    def allows(self, old: float, new: float) -> bool:
        """Whether the metric may have moved from `old` to `new`."""
        if self.kind == "factor":
            return old / self.limit <= new <= old * self.limit
        return abs(new - old) <= self.limit * (abs(old) if self.kind == "relative" else 1)

    def __str__(self) -> str:
        if self.kind == "factor":
            return f"×/÷ {self.limit:g}"
        return f"± {self.limit:.3g}" if self.kind == "absolute" else f"± {100 * self.limit:.3g}%"


@dataclass(frozen=True)
class Golden:
    """Content of a golden file.

    Attributes:
        conditions: what the values are comparable under.
        orderings: (better, `<` or `<=`, worse) methods, by perplexity.
        time_ratios: pairs of methods whose pruning times are compared.
        tolerances: by the first word or words of a metric's name.
        values: by cell and metric.
        times: ratios of pruning times by group and pair.
    """

    conditions: dict[str, str]
    orderings: list[tuple[str, str, str]]
    time_ratios: list[tuple[str, str]]
    tolerances: dict[str, Tolerance]
    values: dict[str, dict[str, Value]]
    times: dict[str, dict[str, float]]

    def tolerance(self, metric: str) -> Tolerance:
        """The tolerance of a metric, by the longest name that it begins with.

        Raises:
            UserError: the file has none.
        """
        names = [name for name in self.tolerances if f"{metric} ".startswith(f"{name} ")]
        if not names:
            raise UserError(f"the golden file has no tolerance for {metric!r}; add one with reason")
        return self.tolerances[max(names, key=len)]


def read_golden(path: Path) -> Golden:
    """Read a golden file.

    Raises:
        UserError: if it is missing or malformed; the message names file and key.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist; `snakemake accept --config golden={path}` writes it"
        ) from None
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}") from None
    for key in _KEYS:
        if key not in content:
            raise UserError(f"{path}: no key {key!r}: not a golden file")
    for _, sign, _ in content["orderings"]:
        if sign not in ("<", "<="):
            raise UserError(f"{path}: orderings: {sign!r} is neither < nor <=")
    tolerances = {
        name: _tolerance(given, f"{path}: tolerances.{name}")
        for name, given in content["tolerances"].items()
    }
    return Golden(
        content["conditions"],
        [(better, sign, worse) for better, sign, worse in content["orderings"]],
        [(one, other) for one, other in content["time_ratios"]],
        tolerances,
        content["values"],
        content["times"],
    )


def _tolerance(given: dict[str, Any], where: str) -> Tolerance:
    kinds = [kind for kind in _KINDS if kind in given]
    if len(kinds) != 1 or not given.get("reason"):
        raise UserError(f"{where}: expected one of {', '.join(_KINDS)}, and a reason")
    return Tolerance(kinds[0], float(given[kinds[0]]), given["reason"])


def accepted(golden: Golden, measured: Measured) -> Golden:
    """The same orderings and tolerances with the values of today."""
    return replace(
        golden,
        conditions=measured.conditions,
        values={name: cell.metrics for name, cell in measured.cells.items()},
        times=time_ratios(measured, golden.time_ratios),
    )


def time_ratios(measured: Measured, pairs: list[tuple[str, str]]) -> dict[str, dict[str, float]]:
    """Ratios of pruning times of two methods in the same group, by group and `one/other`."""
    seconds: dict[str, dict[str, float]] = {}
    for cell in measured.cells.values():
        if cell.seconds is not None:
            seconds.setdefault(cell.group, {})[cell.method] = cell.seconds
    ratios: dict[str, dict[str, float]] = {}
    for group, methods in seconds.items():
        for one, other in pairs:
            if one in methods and other in methods:
                ratio = methods[one] / methods[other]
                ratios.setdefault(group, {})[f"{one}/{other}"] = float(f"{ratio:.3g}")
    return ratios


def write_golden(path: Path, golden: Golden) -> None:
    """Write a golden file, which may be edited by hand: it is not sealed."""
    content = {
        "conditions": golden.conditions,
        "orderings": golden.orderings,
        "time_ratios": golden.time_ratios,
        "tolerances": {
            name: {tolerance.kind: tolerance.limit, "reason": tolerance.reason}
            for name, tolerance in golden.tolerances.items()
        },
        # In an order of their own: a suite that runs its cells in another has no diff.
        "values": dict(sorted(golden.values.items())),
        "times": dict(sorted(golden.times.items())),
    }
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
