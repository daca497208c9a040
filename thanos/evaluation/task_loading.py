"""Tasks and groups of lm-eval by name, with their data from the hub, a mirror or local files.

Templates, metrics and versions are always lm-eval's own.
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ..data.files import read_json_lines
from ..errors import UserError
from .benchmarks import DEFINITIONS, FOLDER, Row, file_of_task, mirrored_rows

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks.manager import TaskDict

_SPLITS = ("training_split", "validation_split", "test_split", "fewshot_split")


@dataclass(frozen=True)
class Places:
    """Where tasks and their data lie.

    Attributes:
        mirror: folder that replaces the hub.
        include_path: folder of local tasks in lm-eval's YAML.
        data_folder: where relative `data_files` of local tasks are; by default `include_path`.
    """

    mirror: Path | None = None
    include_path: Path | None = None
    data_folder: Path | None = None


def load_tasks(name: str, places: Places) -> "TaskDict":
    """The task called `name`, or all tasks of the group or tag, with their data.

    Raises:
        UserError: there is none, or its data is missing or damaged.
    """
    try:
        return _manager(name, places).load([_definition(name, places.include_path)])
    except (OSError, ValueError, KeyError, ImportError) as error:
        if places.mirror is not None or name not in DEFINITIONS:
            raise UserError(
                f"evaluation.tasks: {name} does not load ({type(error).__name__}: {error})"
            ) from error
        raise UserError(
            f"evaluation.tasks: {name} could not be fetched from the Hugging Face hub "
            f"({type(error).__name__}); set mirror to a folder with {FOLDER}/{name}.jsonl"
        ) from error


def _definition(name: str, include_path: Path | None) -> str | dict[str, Any]:
    """What lm-eval takes for a task: its one file where that is known, otherwise the name."""
    from lm_eval.tasks._yaml_loader import load_yaml  # resolves `include` and `!function`

    file = _known_file(name, include_path)
    config = {} if file is None else load_yaml(file)
    return config if "task" in config and "group" not in config else name


def _known_file(name: str, include_path: Path | None) -> Path | None:
    if include_path is not None and (own := file_of_task(include_path, name, ".yaml")).is_file():
        return own
    return builtin_tasks() / DEFINITIONS[name] if name in DEFINITIONS else None


def builtin_tasks() -> Path:
    """lm-eval's own tasks folder."""
    import lm_eval.tasks

    return Path(lm_eval.tasks.__file__).parent


def _manager(name: str, places: Places) -> "TaskManager":
    """A manager that knows the task; reading all of lm-eval's definitions takes 10 to 17 seconds.

    Raises:
        UserError: nobody knows the task.
    """
    from lm_eval.tasks import TaskManager

    known = _known_file(name, places.include_path) is not None
    if known:
        manager = TaskManager(include_defaults=False, include_path=places.include_path)
    else:
        manager = _all_tasks()
    if not known and (not _is_mentioned(name) or name not in manager.all_tasks):
        missing = ""
        if places.include_path is not None:
            missing = f", and {places.include_path} has no {name}.yaml"
        raise UserError(
            f"evaluation.tasks: unknown task {name!r}; known are {', '.join(DEFINITIONS)} and "
            f"every other task or group of lm-eval by its name{missing}"
        )
    manager._factory = _factory(places)
    return manager


@functools.cache
def _all_tasks() -> "TaskManager":
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _is_mentioned(name: str) -> bool:
    """Whether any of lm-eval's definitions has the name in it: a second, before ten are spent."""
    word = re.compile(rb"(?<![\w-])" + re.escape(name.encode()) + rb"(?![\w-])")
    files = builtin_tasks().rglob("*.yaml")
    return any(word.search(file.read_bytes()) for file in files)


def _factory(places: Places) -> Any:
    """lm-eval's maker of tasks, which takes their rows from where `places` says."""
    from lm_eval.tasks._factory import TaskFactory

    class Factory(TaskFactory):
        def _load_full_config(self, entry: Any, overrides: Any = None) -> dict[str, Any]:
            config: dict[str, Any] = super()._load_full_config(entry, overrides)
            return config if "group" in config else _with_rows(config, places)

    return Factory()


def definitions(name: str) -> list[dict[str, Any]]:
    """What lm-eval says of a task, or of every task of a group or tag, without their data.

    Raises:
        UserError: there is none.
    """
    from lm_eval.tasks._factory import TaskFactory

    found: list[dict[str, Any]] = []

    class Reader(TaskFactory):
        def _build_task(self, entry: Any, overrides: Any) -> Any:
            found.append(self._load_full_config(entry, overrides))
            return SimpleNamespace(task_name=found[-1]["task"])

    manager = _manager(name, Places())
    manager._factory = Reader()
    manager.load([_definition(name, None)])
    return found


def _with_rows(config: dict[str, Any], places: Places) -> dict[str, Any]:
    """The definition of a task that reads local rows, if it is to read any."""
    rows = _local_rows(config, places)
    if rows is None:
        return config
    absent = {split: None for split in _SPLITS if config.get(split) not in rows}
    # In memory: the json loader of `datasets` would leave a copy in the user's cache.
    return {**config, **absent, "num_fewshot": 0, "custom_dataset": _dataset_of(rows)}


def _local_rows(config: dict[str, Any], places: Places) -> dict[str, list[Row]] | None:
    """Return the rows of each split that is read from local files; None for the hub's data."""
    files = (config.get("dataset_kwargs") or {}).get("data_files")
    if config.get("dataset_path") == "json" and isinstance(files, dict):
        folder = places.data_folder or places.include_path or Path()
        return {split: read_json_lines(folder / file) for split, file in files.items()}
    if places.mirror is None:
        return None
    split = scored_split(config)
    return {split: mirrored_rows(str(config["task"]), places.mirror)}


def scored_split(config: dict[str, Any]) -> str:
    """The split that lm-eval scores.

    Raises:
        UserError: the task's own code reads its data.
    """
    split = config.get("test_split") or config.get("validation_split")
    if "class" in config or not isinstance(split, str) or not config.get("dataset_path"):
        raise UserError(
            f"evaluation.tasks: {config.get('task')} reads its data by code of its own, which "
            "knows no mirror; leave it out, or run it where there is network without mirror"
        )
    return split


def _dataset_of(rows: dict[str, list[Row]]) -> Callable[..., Any]:
    def dataset(**_: Any) -> Any:  # lm-eval passes the task's metadata
        from datasets import Dataset, DatasetDict

        return DatasetDict({split: Dataset.from_list(items) for split, items in rows.items()})

    return dataset
