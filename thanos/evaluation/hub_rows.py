"""The rows of a zero-shot task as the hub has them, for a mirror."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import UserError, is_full_disk
from .benchmarks import FOLDER, file_of_task
from .task_loading import definitions, scored_split


def fetch_task(task: str, mirror: Path) -> Iterator[tuple[Path, str]]:
    """Write the split that lm-eval scores to `zeroshot/<task>.jsonl`; yield file and revision.

    Of a group or tag, every task's.

    Raises:
        UserError: there is no such task, or the hub does not give the data set.
    """
    for config in definitions(task):
        yield _fetch(config, scored_split(config), mirror)


def _fetch(config: dict[str, Any], split: str, mirror: Path) -> tuple[Path, str]:
    from datasets import load_dataset
    from huggingface_hub import HfApi

    repository, options = config["dataset_path"], dict(config.get("dataset_kwargs") or {})
    options.pop("trust_remote_code", None)
    file = file_of_task(mirror / FOLDER, config["task"], ".jsonl")
    try:
        revision = HfApi().dataset_info(repository).sha
        rows = load_dataset(
            repository, config.get("dataset_name"), split=split, revision=revision, **options
        )
    except Exception as error:  # a data set's formats and the network fail in many ways
        if is_full_disk(error):
            raise
        raise UserError(
            f"zero-shot task {config['task']}: {repository} could not be fetched from the Hugging "
            f"Face hub ({type(error).__name__}); run the same command again"
        ) from error
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".part")
    rows.to_json(temporary, force_ascii=False)
    temporary.replace(file)
    return file, str(revision)
