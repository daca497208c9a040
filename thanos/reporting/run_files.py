"""The files of one run folder, read and checked: what the rest of reporting relies on."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from thanos.artifacts import read_json, verify_text
from thanos.errors import UserError
from thanos.reporting.labels import DENSE


@dataclass(frozen=True)
class RunFiles:
    """The content of one `results/runs/<model>/<pattern>/<method>-<hash8>/`.

    A part is empty where the run has none of it: a dense run was not pruned, a run without tasks
    has no zero-shot result.
    """

    folder: Path
    config: dict[str, Any]
    pruning: dict[str, Any]
    perplexity: dict[str, Any]
    zero_shot: dict[str, Any]
    size: dict[str, Any]
    efficiency: dict[str, Any]

    @property
    def name(self) -> str:
        """`<model>/<pattern>/<method>-<hash8>`: the run's path below `results/runs`."""
        return "/".join(self.folder.resolve().parts[-3:])


def read_run(folder: Path) -> RunFiles:
    """Read a run folder; a missing, unreadable or non-finite result is a UserError with its path.

    `pruning.json` may be missing in a dense run only, `perplexity.json` and `zero_shot.json` where
    the config's evaluation lists no corpora or tasks, `size.json` and `efficiency.json` always.
    """
    config = _read_config(folder / "config.yaml")
    evaluation = config.get("evaluation") or {}
    return RunFiles(
        folder=folder,
        config=config,
        pruning=_read_results(folder / "pruning.json", config.get("pattern") != DENSE),
        perplexity=_read_results(
            folder / "perplexity.json", _is_configured(evaluation, ("corpora", "perplexity"), True)
        ),
        zero_shot=_read_results(
            folder / "zero_shot.json", _is_configured(evaluation, ("tasks", "zero_shot"), False)
        ),
        size=_read_results(folder / "size.json", required=False),
        efficiency=_read_results(folder / "efficiency.json", required=False),
    )


def _is_configured(evaluation: dict[str, Any], keys: tuple[str, ...], otherwise: bool) -> bool:
    """Whether the evaluation asks for this kind of result, under whichever of the keys it has."""
    for key in keys:
        if key in evaluation:
            section = evaluation[key]
            if isinstance(section, dict) and "tasks" in section:
                section = section["tasks"]
            return bool(section)
    return otherwise


def _read_config(path: Path) -> dict[str, Any]:
    verify_text(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read ({reason}); run its rule again") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a mapping, found {type(content).__name__}")
    for key in ("seed", "model", "method", "pattern"):
        if key not in content:
            raise UserError(f"{path}: no key {key!r}: not the config of a finished run")
    return content


def _read_results(path: Path, required: bool) -> dict[str, Any]:
    if not required and not path.exists():
        return {}
    content = read_json(path)
    _refuse_non_finite(content, path, "")
    return content


def _refuse_non_finite(value: Any, path: Path, key: str) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            _refuse_non_finite(item, path, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_non_finite(item, path, f"{key}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(
            f"{path}: {key} is {value}: the model or its evaluation broke down; see the run's logs"
        )
