"""The comparison as a table for the terminal, as Markdown and as JUnit XML."""

from collections.abc import Sequence
from xml.etree import ElementTree

from tabulate import tabulate

from thanos.regression.compare import NOT_COMPARABLE, RED, Check
from thanos.regression.measured import Value

_HEADS = ("run", "metric", "old", "new", "tolerance", "verdict")


def to_table(checks: Sequence[Check], style: str) -> str:
    """All checks, those that fail first; `style` is one of tabulate's."""
    rows = [
        (check.cell, check.metric, _text(check.old), _text(check.new), *_judged(check))
        for check in sorted(checks, key=lambda check: check.verdict not in RED)
    ]
    return tabulate(rows, _HEADS, tablefmt=style, disable_numparse=True)


def to_markdown(checks: Sequence[Check], changes: Sequence[str], summary: str) -> str:
    """A report for a person: what it comes to, the table, the reasons of the tolerances."""
    reasons = dict.fromkeys(
        f"- {' '.join(check.metric.split()[:1])} {check.tolerance}: {check.reason}"
        for check in checks
        if check.reason
    )
    parts = ["# Regression of metrics", summary]
    if changes:
        parts.append("Changed since the golden values:\n\n" + "\n".join(f"- {c}" for c in changes))
    parts += [to_table(checks, "github"), "Reasons of the tolerances:", "\n".join(reasons)]
    return "\n\n".join(part for part in parts if part) + "\n"


def to_junit(checks: Sequence[Check], changes: Sequence[str]) -> str:
    """JUnit XML: a test case per check, and one for the conditions."""
    failed = sum(check.verdict in RED for check in checks) + bool(changes)
    skipped = sum(check.verdict == NOT_COMPARABLE for check in checks)
    suite = ElementTree.Element(
        "testsuite",
        name="thanos.regression",
        tests=str(len(checks) + 1),
        failures=str(failed),
        skipped=str(skipped),
        errors="0",
    )
    conditions = ElementTree.SubElement(suite, "testcase", classname="conditions", name="unchanged")
    if changes:
        message = f"{NOT_COMPARABLE}: {'; '.join(changes)}"
        ElementTree.SubElement(conditions, "failure", message=message)
    for check in checks:
        case = ElementTree.SubElement(suite, "testcase", classname=check.cell, name=check.metric)
        old, new = _text(check.old), _text(check.new)
        message = f"{check.verdict}: {old} → {new}, tolerance {check.tolerance}"
        if check.verdict in RED:
            ElementTree.SubElement(case, "failure", message=message).text = check.reason
        elif check.verdict == NOT_COMPARABLE:
            ElementTree.SubElement(case, "skipped", message=message)
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _judged(check: Check) -> tuple[str, str]:
    return check.tolerance, check.verdict


def _text(value: Value | None) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:.6g}"
