"""Suites: from a yaml of axes to the runs of an experiment.

A suite file under `conf/suite/` lists blocks of Hydra overrides under `runs`. A value that is a
list is an axis: a block stands for the product of its axes, together with those of `common`.
`variants` names sets of overrides, which a block uses by the key `variant`; `exclude` lists points
to leave out; `quick` replaces values for a small run, `real` for one on a trained language model;
`axis` names the keys an ablation varies.
"""

import itertools
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from ..config import PLACE_KEYS, Folders, Run, RunBuilder, axis, key_of, resolve, unused_keys
from ..config.checks import choices_of
from ..config.grammar import Value, meaning, written
from ..errors import UserError
from ..identity.spec import digest
from ..reporting.cells import METHOD_OPTIONS, refuse_shared_cells
from ..reporting.labels import own_label
from .suite_files import read_suite, suite_files


@dataclass(frozen=True)
class Suite:
    """A set of runs and what is made of them.

    Attributes:
        name: of the file.
        title: what its tables and figures show.
        runs: without repetition, in the order of the file; those are one that make and measure
            the same under the same names.
        axes: the configuration keys that an ablation varies; none for a comparison of methods.
        overrides: of the file's values, without those of the place.
        folders: of the user's own that it was composed with.
    """

    name: str
    title: str
    runs: tuple[Run, ...]
    axes: tuple[str, ...]
    overrides: tuple[str, ...] = ()
    folders: Folders = ()


def load_suite(
    name: str, overrides: Iterable[str] = (), size: str = "", folders: Folders = ()
) -> Suite:
    """Compose and check every run of a suite.

    Args:
        name: of a file under `conf/suite/`, or in such a folder of the user's.
        overrides: `key=value` or a sweep in Hydra's grammar (`key=value,value`), in place of the
            suite's own values of that key.
        size: apply the suite's `quick` or `real` values; empty: none.
        folders: the user's own, like `conf/`.

    Raises:
        UserError: if the suite or its size does not exist, its file is malformed or a run does not
            compose; the message names the suite, the block and, where one value is at fault, the
            axis.
    """
    files = suite_files(folders)
    if name not in files:
        raise UserError(f"unknown suite {name!r}; known: {', '.join(sorted(files))}")
    return compose_suite(name, read_suite(files[name]), tuple(overrides), size, folders)


def compose_suite(
    name: str,
    content: Mapping[str, Any],
    overrides: tuple[str, ...] = (),
    size: str = "",
    folders: Folders = (),
) -> Suite:
    """Compose and check every run of a suite, given what its file has or would have."""
    swept = [axis(override, folders) for override in overrides]
    asked = {key.removeprefix("++"): values for key, values in swept}  # a suite has no other keys
    if size == "real" and size not in content:
        raise UserError(f"suite {name} has no {size} variant; a key of that name with values")
    replaced = {**content.get(size, {}), **asked}
    composed = _Runs(RunBuilder(), folders)
    for number, block in enumerate(content["runs"], start=1):
        where = f"suite {name}, block {number}"
        values = {**content.get("common", {}), **block}
        variants = content.get("variants", {})
        # Under other values than its own, a suite's keys may well be of no use.
        named = [] if asked else [*block, *_keys_of(variants, block)]
        with composed.of_block(where, named, replaced):
            for point in _points(values, replaced, variants, where):
                if any(_matches(point, excluded) for excluded in content.get("exclude", [])):
                    continue
                composed.add(point, where)
    composed.refuse_unused(f"suite {name}", asked or [*content.get("common", {}), *replaced])
    axes = tuple(_values(content.get("axis", [])))
    blocks = (content.get("common", {}), *content["runs"], *content.get("variants", {}).values())
    varied = {key for block in blocks for key in block}
    if unknown := [key for key in axes if key not in varied]:
        raise UserError(f"suite {name}: axis {unknown[0]!r} is no key of its blocks")
    title, runs = content.get("title") or name, _called_alike(composed.runs.values())
    if not runs:
        raise UserError(f"suite {name}: it has no run; give it a block that is not excluded")
    try:
        refuse_shared_cells(((run.name, run.columns) for run in runs), axes)
    except UserError as error:
        raise UserError(f"suite {name}: {error}") from error
    kept = tuple(text for text in overrides if key_of(text) not in PLACE_KEYS)
    return Suite(name, title, runs, axes, kept, folders)


def _points(
    axes: Mapping[str, Any],
    replaced: Mapping[str, Any],
    variants: Mapping[str, Mapping[str, Any]],
    where: str,
) -> Iterator[dict[str, Value]]:
    """The product of the axes, each point as its overrides; `replaced` values go first."""
    for variant in _values(axes.get("variant", [None])):
        if variant is not None and variant not in variants:
            raise UserError(
                f"{where}, axis variant: unknown {variant!r}; known: {', '.join(variants)}"
            )
        merged = {**axes, **variants.get(variant, {})}
        merged.pop("variant", None)
        for part in _dense_apart(merged):
            chosen = {**part, **replaced}
            if part.get("method") == "dense":  # the reference belongs to every suite
                chosen["method"] = "dense"
            for point in itertools.product(*map(_values, chosen.values())):
                yield dict(zip(chosen, point, strict=True))


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


def _matches(point: Mapping[str, Value], excluded: Mapping[str, Any]) -> bool:
    """Whether a point has one of the excluded values in every key that `excluded` names."""
    return all(
        key in point and meaning(key, point[key]) in [meaning(key, one) for one in _values(values)]
        for key, values in excluded.items()
    )


def _called_alike(runs: Iterable[Run]) -> tuple[Run, ...]:
    """The runs, those of one method by one label: the first that is not its own name, if any is.

    Otherwise the seeds of a row would lie in two, where a block that spells a method out has others
    than the block that calls it by its label.
    """
    runs = tuple(runs)
    labels: dict[tuple[Any, ...], str] = {}
    for run in runs:
        if _is_labelled(run):
            labels.setdefault(_method_of(run), run.columns["label"])
    return tuple(run.called(labels.get(_method_of(run), run.columns["label"])) for run in runs)


def _is_labelled(run: Run) -> bool:
    return bool(own_label(run.columns))


def _method_of(run: Run) -> tuple[Any, ...]:
    return tuple(run.columns[column] for column in ("method", "pattern", *METHOD_OPTIONS))


class _Runs:
    """The runs of a suite as they are composed, and which of the keys given were of use to any.

    A key that only some of a block's methods use applies to those. One that none uses is refused:
    where a block names it, for the block, otherwise for the suite.
    """

    def __init__(self, builder: RunBuilder, folders: Folders) -> None:
        self.runs: dict[str, Run] = {}
        self._builder = builder
        self._folders = folders
        self._used: set[str] = set()
        self._useless: dict[str, str] = {}  # by key: the choice that has no use for it

    @contextmanager
    def of_block(
        self, where: str, named: Iterable[str], replaced: Container[str]
    ) -> Iterator[None]:
        """Compose the points of a block that names these keys itself."""
        before, self._used = self._used, set()
        yield
        self.refuse_unused(where, (key for key in named if key not in replaced))
        self._used |= before

    def add(self, point: Mapping[str, Value], where: str) -> None:
        """Compose a point; an error names the axis whose value is refused."""
        try:
            config = resolve(_overrides(point), self._folders)
            for key in {"output_dir", "models_dir"} & point.keys():
                raise UserError(
                    f"key {key!r} is for one run by hand; what suites make lies in one store, "
                    "the results folder"
                )
            unused = unused_keys(choices_of(config))
            kept = {key: value for key, value in point.items() if key not in unused}
            given = [text for text in _overrides(kept) if key_of(text) not in PLACE_KEYS]
            run = self._builder.run(config, given)
        except UserError as error:
            culprit = next((key for key in point if self._resolves_without(point, key)), None)
            axis = f", axis {culprit}" if culprit else ""
            raise UserError(f"{where}{axis}: {error}") from error
        self._used |= kept.keys()
        self._useless |= {key: unused[key] for key in point if key in unused}
        # By two labels, as thanos-plus and what it stands for, it is one row of a table.
        what = digest([run.evaluation.id, {**run.columns, "label": None}])
        first = self.runs.setdefault(what, run)
        if first.latency is None and run.latency is not None:
            first = replace(first, latency=run.latency)
        if not _is_labelled(first):
            first = first.called(run.columns["label"])
        self.runs[what] = first

    def _resolves_without(self, point: Mapping[str, Value], key: str) -> bool:
        others = {other: value for other, value in point.items() if other != key}
        try:
            resolve(_overrides(others), self._folders)
        except UserError:
            return False
        return True

    def refuse_unused(self, where: str, keys: Iterable[str]) -> None:
        """Refuse keys that no run used so far.

        Raises:
            UserError: there is one.
        """
        for key in keys:
            if key in self._useless and key not in self._used:
                raise UserError(
                    f"{where}: key {key!r} is not used by {self._useless[key]}; leave it out"
                )


def _keys_of(variants: Mapping[str, Mapping[str, Any]], block: Mapping[str, Any]) -> Iterator[str]:
    """The keys of a block's variants."""
    for variant in _values(block.get("variant", [])):
        yield from variants.get(variant, {})


def _overrides(point: Mapping[str, Value]) -> list[str]:
    """A point as overrides: groups first, so that values refine them."""
    ordered = sorted(point, key=lambda key: "." in key)
    return [written(key, point[key]) for key in ordered]
