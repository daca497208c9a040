"""Zero-shot tasks by lm-eval's own harness: accuracy, perplexity per word, any other metric."""

import contextlib
import copy
import io
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..models.source import BlocksInMemory, BlockSource
from .task_loading import Places, load_tasks
from .task_results import Score, TaskResult, WordPerplexityResult

if TYPE_CHECKING:
    from lm_eval.tasks.manager import TaskDict
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


_PER_TEXT = ("word_perplexity", "byte_perplexity", "bits_per_byte")
_IN_PERCENT = ("acc", "acc_norm", "exact_match")  # shares of the items, by lm-eval from 0 to 1
_HIDDEN_BUDGET = 2**30


def zero_shot(
    model: "PreTrainedModel | BlockSource",
    tokenizer: "PreTrainedTokenizerBase",
    task: str,
    *,
    batch_size: int = 8,
    hidden_budget: int = _HIDDEN_BUDGET,
    limit: int | None = None,
    mirror: str | Path | None = None,
    include_path: str | Path | None = None,
    data_folder: str | Path | None = None,
) -> TaskResult | WordPerplexityResult:
    """Score a model on a task or a group of them, without examples in the prompt.

    Args:
        model: causal language model, already on its device; or the source of its blocks, each of
            which is then taken once for as many requests as the budget allows.
        task: the name of a task, group or tag of lm-eval, or of `<include_path>/<name>.yaml`.
        batch_size: requests per forward pass; fixed, because padding makes the last bits depend on
            it. Of requests above 256 tokens fewer go together.
        hidden_budget: bytes of hidden states, for a source that reads its blocks.
        limit: score only the first items of each task; None for all.
        mirror: folder that replaces the hub.
        include_path: folder of local tasks in lm-eval's YAML.
        data_folder: where relative `data_files` of local tasks are; by default `include_path`.

    Raises:
        UserError: unknown task, missing or damaged data, no network and no mirror, no token that
            can stand before a text.
    """
    check_tokenizer(tokenizer)
    from lm_eval.evaluator import evaluate  # simple_evaluate would also probe git, pip and CUDA
    from transformers import PreTrainedModel

    from .block_harness import BlockHarness

    loaded = load_task(task, mirror, include_path, data_folder)
    source = BlocksInMemory(model) if isinstance(model, PreTrainedModel) else model
    with _quiet():
        # The harness chooses a padding token; the caller's tokenizer stays as it is.
        harness = BlockHarness(source, copy.deepcopy(tokenizer), batch_size, hidden_budget)
        scored = evaluate(harness, loaded, limit=limit, log_samples=False)
    return _result(task, scored)


def load_task(
    task: str,
    mirror: str | Path | None = None,
    include_path: str | Path | None = None,
    data_folder: str | Path | None = None,
) -> "TaskDict":
    """A task with its data, as lm-eval has it; arguments and errors as of `zero_shot`."""
    places = (
        None if place is None else Path(place) for place in (mirror, include_path, data_folder)
    )
    with _quiet():
        loaded = load_tasks(task, Places(*places))
        for each in loaded["tasks"].values():
            each.set_config("num_fewshot", 0)
            each.set_fewshot_seed(0)
    return loaded


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


def _result(name: str, scored: dict[str, Any]) -> TaskResult | WordPerplexityResult:
    """What lm-eval found for a task, or for a group, which may have no metrics of its own."""
    from lm_eval import __version__

    metrics = scored["results"].get(name, {})
    others = [other for other in scored["results"] if other != name]
    subtasks = {other: _task_result(other, scored) for other in others}
    if "word_perplexity,none" in metrics:
        return WordPerplexityResult(
            **{key: metrics[f"{key},none"] for key in _PER_TEXT},
            items=scored["n-samples"][name]["effective"],
            version=str(scored["versions"][name]),
            harness_version=__version__,
        )
    found = _task_result(name, scored, subtasks)
    scores = [found, *subtasks.values()]
    if all(score.accuracy is None and not score.others for score in scores):
        raise UserError(f"evaluation.tasks: {name} has no metric that is a number")
    return found


def _task_result(
    name: str, scored: dict[str, Any], subtasks: dict[str, TaskResult] | None = None
) -> TaskResult:
    from lm_eval import __version__

    scores = _scores(name, scored)
    accuracy, normalized = scores.pop("acc", None), scores.pop("acc_norm", None)
    counted = scored["n-samples"]
    leaves = [name] if name in counted else _leaves(name, scored)
    return TaskResult(
        accuracy=None if accuracy is None else accuracy.value,
        standard_error=None if accuracy is None else accuracy.standard_error or 0.0,
        normalized_accuracy=None if normalized is None else normalized.value,
        items=sum(counted[leaf]["effective"] for leaf in leaves),
        version=str(scored["versions"].get(name, "")),
        harness_version=__version__,
        others=scores,
        subtasks=subtasks or {},
    )


def _leaves(group: str, scored: dict[str, Any]) -> set[str]:
    """The tasks below a group; all of them for a tag, of which lm-eval keeps no record."""
    members = scored.get("group_subtasks", {})
    if group not in members:
        return set(scored["n-samples"])
    below = (_leaves(m, scored) if m in members else {m} for m in members[group])
    return set().union(*below)


def _scores(name: str, scored: dict[str, Any]) -> dict[str, Score]:
    """The metrics of one task or group, by name and filter."""
    metrics = scored["results"].get(name, {})
    directions = scored.get("higher_is_better", {}).get(name) or {}
    found: dict[str, Score] = {}
    for key, value in metrics.items():
        metric, comma, filtered = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        error = metrics.get(f"{metric}_stderr,{filtered}")  # in words, for a single item
        factor = 100 if metric in _IN_PERCENT else 1
        found[metric if filtered == "none" else f"{metric} ({filtered})"] = Score(
            value=factor * value,
            standard_error=factor * error if isinstance(error, float) else None,
            higher_is_better=bool(directions.get(metric, True)),
        )
    return found


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
