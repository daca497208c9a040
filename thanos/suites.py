"""Suites: from a yaml of axes to the runs of an experiment.

A suite file under `conf/suite/` lists blocks of Hydra overrides. A value that is a list is an axis:
a block stands for the product of its axes, together with those of `common`.
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
_KEYS = {"title", "common", "runs", "quick", "axis"}
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
            message names the suite and the block.
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
        kept = _PRUNING if block.get("method") == "dense" else ()
        given = {key: value for key, value in replaced.items() if key not in kept}
        values = {**content.get("common", {}), **block, **given}
        for point in _points(values):
            try:
                config = resolve(point)
                run = Run(config.as_reference() if config.dense else config, tuple(point))
            except UserError as error:
                raise UserError(f"suite {name}, block {number}: {error}") from error
            runs.setdefault(run.identifier, run)
    axes = content.get("axis", [])
    axes = (axes,) if isinstance(axes, str) else tuple(axes)
    return Suite(name, str(content.get("title", name)), tuple(runs.values()), axes)


def _split(override: str) -> tuple[str, list[str]]:
    key, equals, value = override.partition("=")
    if not equals:
        raise UserError(f"override {override!r} has no value; expected key=value")
    return key, value.split(",") if "[" not in value else [value]


def _points(axes: Mapping[str, Any]) -> Iterator[list[str]]:
    """The product of the axes as lists of overrides; groups first, so that values refine them."""
    values = [value if isinstance(value, list) else [value] for value in axes.values()]
    for point in itertools.product(*values):
        pairs = [f"{key}={_text(value)}" for key, value in zip(axes, point, strict=True)]
        yield sorted(pairs, key=lambda pair: "." in pair.partition("=")[0])


def _text(value: object) -> str:
    return "null" if value is None else str(value)
