"""Zero-shot accuracy, and perplexity per word, by lm-eval's own harness."""

import contextlib
import copy
import io
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.files import read_json_lines
from ..errors import UserError
from .benchmarks import DEFINITIONS, FOLDER, Row, mirrored_rows

if TYPE_CHECKING:
    from lm_eval.api.task import Task
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


_PER_TEXT = ("word_perplexity", "byte_perplexity", "bits_per_byte")


@dataclass(frozen=True)
class TaskResult:
    """One task's accuracy in percent."""

    accuracy: float
    standard_error: float
    normalized_accuracy: float | None  # by the choices' lengths, where the task has it
    items: int
    version: str  # lm-eval's version of the task
    harness_version: str


@dataclass(frozen=True)
class WordPerplexityResult:
    """What lm-eval calls perplexity: per word or byte of the text, whatever the tokenizer."""

    word_perplexity: float
    byte_perplexity: float
    bits_per_byte: float
    items: int  # documents
    version: str  # lm-eval's version of the task
    harness_version: str


def zero_shot(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    task: str,
    *,
    batch_size: int = 8,
    limit: int | None = None,
    mirror: str | Path | None = None,
    include_path: str | Path | None = None,
    data_folder: str | Path | None = None,
) -> TaskResult | WordPerplexityResult:
    """Score a model on a multiple-choice task or a text, without examples in the prompt.

    Args:
        model: causal language model, already on its device.
        task: a name of `benchmarks.DEFINITIONS`, or of `<include_path>/<name>.yaml`.
        batch_size: fixed, because padding makes the last bits depend on it.
        limit: score only the first items; None for all.
        mirror: folder that replaces the hub for the tasks of `benchmarks`.
        include_path: folder of local tasks in lm-eval's YAML.
        data_folder: where relative `data_files` of local tasks are; by default `include_path`.

    Raises:
        UserError: unknown task, missing or damaged data, no network and no mirror, no token that
            can stand before a text.
    """
    check_tokenizer(tokenizer)
    from lm_eval.evaluator import evaluate  # simple_evaluate would also probe git, pip and CUDA
    from lm_eval.models.huggingface import HFLM

    loaded = load_task(task, mirror, include_path, data_folder)
    with _quiet():
        # The harness chooses a padding token; the caller's tokenizer stays as it is.
        harness = HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=batch_size)
        scored = evaluate(harness, {"tasks": {task: loaded}}, limit=limit, log_samples=False)
    return _result(task, scored)


def load_task(
    task: str,
    mirror: str | Path | None = None,
    include_path: str | Path | None = None,
    data_folder: str | Path | None = None,
) -> "Task":
    """A task with its data, as lm-eval has it; arguments and errors as of `zero_shot`."""
    places = (
        None if place is None else Path(place) for place in (mirror, include_path, data_folder)
    )
    with _quiet():
        return _load(task, _Places(*places))


def check_tokenizer(tokenizer: "PreTrainedTokenizerBase") -> None:
    """Refuse a tokenizer without a token that the harness can set before a text.

    The model's configuration is no way out: its class has default ids, whatever the vocabulary.

    Raises:
        UserError: it names neither the beginning nor the end of a text.
    """
    if tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
        raise UserError(
            "evaluation.tasks: zero-shot tasks need a token for the beginning or the end of a "
            "text; name bos_token or eos_token in the model's tokenizer_config.json, or set "
            "evaluation.tasks=[]"
        )


@dataclass(frozen=True)
class _Places:
    mirror: Path | None
    include_path: Path | None
    data_folder: Path | None


def _load(name: str, places: _Places) -> "Task":
    """Build one task from its one file, without lm-eval's scan of all built-in tasks."""
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._yaml_loader import load_yaml  # resolves `include` and `!function`

    config = load_yaml(_definition(name, places.include_path))
    rows = _local_rows(name, config, places)
    if rows is not None:
        # In memory: the json loader of `datasets` would leave a copy in the user's cache.
        config["custom_dataset"] = _dataset_of(rows)
        for split in ("training_split", "validation_split", "test_split"):
            if config.get(split) not in rows:
                config[split] = None
    try:
        task = TaskManager(include_defaults=False).load([config])["tasks"][name]
    except (OSError, ValueError) as error:
        if rows is not None:
            raise UserError(f"evaluation.tasks: {name} does not load ({error})") from error
        raise UserError(
            f"evaluation.tasks: {name} could not be fetched from the Hugging Face hub "
            f"({type(error).__name__}); set mirror to a folder with "
            f"{FOLDER}/{name}.jsonl"
        ) from error
    task.set_config("num_fewshot", 0)
    task.set_fewshot_seed(0)
    return task


def _definition(name: str, include_path: Path | None) -> Path:
    if include_path is not None and (include_path / f"{name}.yaml").is_file():
        return include_path / f"{name}.yaml"
    if name in DEFINITIONS:
        import lm_eval.tasks

        return Path(lm_eval.tasks.__file__).parent / DEFINITIONS[name]
    missing = "" if include_path is None else f", and {include_path} has no {name}.yaml"
    raise UserError(
        f"evaluation.tasks: unknown task {name!r}; known are {', '.join(DEFINITIONS)}{missing}"
    )


def _local_rows(name: str, config: dict[str, Any], places: _Places) -> dict[str, list[Row]] | None:
    """Return the rows of each split that is read from local files; None for the hub's data."""
    files = (config.get("dataset_kwargs") or {}).get("data_files")
    if config["dataset_path"] == "json" and isinstance(files, dict):
        folder = places.data_folder or places.include_path or Path()
        return {split: read_json_lines(folder / file) for split, file in files.items()}
    if places.mirror is not None and name in DEFINITIONS:
        split = config.get("test_split") or config["validation_split"]
        return {split: mirrored_rows(name, places.mirror)}
    return None


def _dataset_of(rows: dict[str, list[Row]]) -> Callable[..., Any]:
    def dataset(**_: Any) -> Any:  # lm-eval passes the task's metadata
        from datasets import Dataset, DatasetDict

        return DatasetDict({split: Dataset.from_list(items) for split, items in rows.items()})

    return dataset


def _result(name: str, scored: dict[str, Any]) -> TaskResult | WordPerplexityResult:
    from lm_eval import __version__

    metrics = scored["results"][name]
    items, version = scored["n-samples"][name]["effective"], str(scored["versions"][name])
    if "word_perplexity,none" in metrics:
        per = {key: metrics[f"{key},none"] for key in _PER_TEXT}
        return WordPerplexityResult(
            **per, items=items, version=version, harness_version=__version__
        )
    if "acc,none" not in metrics:
        raise UserError(f"evaluation.tasks: {name} has no accuracy; give multiple-choice tasks")
    normalized = metrics.get("acc_norm,none")
    error = metrics["acc_stderr,none"]  # not a number in words, for a single item
    return TaskResult(
        accuracy=100 * metrics["acc,none"],
        standard_error=100 * error if isinstance(error, float) else 0.0,
        normalized_accuracy=None if normalized is None else 100 * normalized,
        items=items,
        version=version,
        harness_version=__version__,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the harness' log below errors, and its progress bars off anything but a terminal."""
    loggers = [logging.getLogger(name) for name in ("lm_eval", "huggingface_hub", "transformers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    chatter = sys.stderr if sys.stderr.isatty() else io.StringIO()
    try:
        with contextlib.redirect_stderr(chatter):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
