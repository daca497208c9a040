"""Suites: from a yaml of axes to the runs of an experiment.

A suite file under `conf/suite/` lists blocks of Hydra overrides under `runs`. A value that is a
list is an axis: a block stands for the product of its axes, together with those of `common`.
`variants` names sets of overrides, which a block uses by the key `variant`; `exclude` lists points
to leave out; `quick` replaces values for a small run; `axis` names the keys an ablation varies.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import yaml

from .config import CONF, Config, hash8, resolve
from .errors import UserError

# What a suite file may contain.
_KEYS = {"title", "common", "runs", "quick", "axis", "exclude", "variants"}
# Overrides of these leave a block of dense runs as it is: the reference belongs to every suite.
_PRUNING = ("method", "pattern", "outlier_fraction")


@dataclass(frozen=True)
class Run:
    """One point of an experiment: its resolved configuration and how to compose it again."""

    config: Config
    overrides: tuple[str, ...]

    @cached_property
    def identifier(self) -> str:
        """`<model>/<pattern>/<method>-<hash8>`, the folder of the run."""
        config = self.config
        name = f"{config.method.label}-{hash8(config.identity())}"
        return f"{config.model.name}/{slug(config.pattern)}/{name}"

    @cached_property
    def calibration(self) -> str | None:
        """`<source>-<hash8>`, the folder of its calibration tokens; None for the dense run."""
        if self.config.dense:
            return None
        return f"{self.config.calibration.name}-{hash8(self.config.calibration_identity())}"

    @cached_property
    def evaluation(self) -> str | None:
        """`<name>-<hash8>`, the folder of its evaluation windows; None without a corpus."""
        if not self.config.evaluation.corpora:
            return None
        return f"{self.config.evaluation.name}-{hash8(self.config.evaluation_identity())}"


@dataclass(frozen=True)
class Suite:
    """A set of runs and what is made of them.

    Attributes:
        name: of the file.
        title: what its tables and figures show.
        runs: without repetition, in the order of the file.
        axes: the configuration keys that an ablation varies; none for a comparison of methods.
    """

    name: str
    title: str
    runs: tuple[Run, ...]
    axes: tuple[str, ...]


def slug(pattern: str) -> str:
    """A sparsity pattern as part of a path: `unstructured-0.5`, `2-4`."""
    return pattern.replace(":", "-")


def suite_names() -> list[str]:
    """The suites under `conf/suite/`."""
    return sorted(file.stem for file in (CONF / "suite").glob("*.yaml"))


def load_suite(name: str, overrides: Iterable[str] = (), quick: bool = False) -> Suite:
    """Compose and check every run of a suite.

    Args:
        name: of a file under `conf/suite/`.
        overrides: `key=value` or `key=value,value`, in place of the suite's own values of that key.
        quick: apply the suite's `quick` overrides, a small variant for tests.

    Raises:
        UserError: if the suite does not exist, its file is malformed or a run does not compose; the
            message names the suite, the block and, where one value is at fault, the axis.
    """
    file = CONF / "suite" / f"{name}.yaml"
    if not file.is_file():
        raise UserError(f"unknown suite {name!r}; known: {', '.join(suite_names())}")
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not isinstance(content.get("runs"), list):
        raise UserError(f"suite {name}: expected a mapping with a list of blocks under 'runs'")
    if unknown := sorted(set(content) - _KEYS):
        raise UserError(
            f"suite {name}: unknown key {unknown[0]!r}; known: {', '.join(sorted(_KEYS))}"
        )
    replaced = dict(_split(override) for override in overrides)
    if quick:
        replaced = {**content.get("quick", {}), **replaced}
    runs: dict[str, Run] = {}
    for number, block in enumerate(content["runs"], start=1):
        where = f"suite {name}, block {number}"
        values = {**content.get("common", {}), **block}
        for point in _points(values, replaced, content.get("variants", {}), where):
            if any(_matches(point, excluded) for excluded in content.get("exclude", [])):
                continue
            run = _compose(point, where)
            runs.setdefault(run.identifier, run)
    axes = content.get("axis", [])
    axes = (axes,) if isinstance(axes, str) else tuple(axes)
    varied = {key for block in (content.get("common", {}), *content["runs"]) for key in block}
    if unknown := [axis for axis in axes if axis not in varied]:
        raise UserError(f"suite {name}: axis {unknown[0]!r} is no key of its blocks")
    return Suite(name, str(content.get("title", name)), tuple(runs.values()), axes)


def _split(override: str) -> tuple[str, list[str]]:
    key, equals, value = override.partition("=")
    if not equals:
        raise UserError(f"override {override!r} has no value; expected key=value")
    return key, value.split(",") if "[" not in value else [value]


def _points(
    axes: Mapping[str, Any],
    replaced: Mapping[str, Any],
    variants: Mapping[str, Mapping[str, Any]],
    where: str,
) -> Iterator[dict[str, str]]:
    """The product of the axes, each point as its overrides; `replaced` values go first."""
    for variant in _values(axes.get("variant", [None])):
        if variant is not None and variant not in variants:
            raise UserError(
                f"{where}, axis variant: unknown {variant!r}; known: {', '.join(variants)}"
            )
        merged = {**axes, **variants.get(variant, {})}
        merged.pop("variant", None)
        for part in _dense_apart(merged):
            kept = _PRUNING if part.get("method") == "dense" else ()
            chosen = {**part, **{key: v for key, v in replaced.items() if key not in kept}}
            for point in itertools.product(*map(_values, chosen.values())):
                yield {key: _text(value) for key, value in zip(chosen, point, strict=True)}


def _dense_apart(axes: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The axes, with the dense reference separate from the methods that prune."""
    methods = _values(axes.get("method", []))
    if "dense" in methods:
        yield {**axes, "method": "dense"}
    if pruning := [method for method in methods if method != "dense"]:
        yield {**axes, "method": pruning}
    if not methods:
        yield dict(axes)


def _values(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _matches(point: Mapping[str, str], excluded: Mapping[str, Any]) -> bool:
    """Whether a point has one of the excluded values in every key that `excluded` names."""
    return all(
        point.get(key) in [_text(value) for value in _values(values)]
        for key, values in excluded.items()
    )


def _compose(point: Mapping[str, str], where: str) -> Run:
    """The run of a point; an error names the axis whose value is refused."""

    def overrides(without: str | None = None) -> list[str]:
        pairs = [f"{key}={value}" for key, value in point.items() if key != without]
        # Groups first, so that values refine them.
        return sorted(pairs, key=lambda pair: "." in pair.partition("=")[0])

    try:
        config = resolve(overrides())
    except UserError as error:
        culprit = next((key for key in point if _resolves(overrides(without=key))), None)
        axis = f", axis {culprit}" if culprit else ""
        raise UserError(f"{where}{axis}: {error}") from error
    return Run(config.as_reference() if config.dense else config, tuple(overrides()))


def _resolves(overrides: list[str]) -> bool:
    try:
        resolve(overrides)
    except UserError:
        return False
    return True


def _text(value: object) -> str:
    return "null" if value is None else str(value)
