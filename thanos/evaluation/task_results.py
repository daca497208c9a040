"""What lm-eval's harness found, and how records hold it."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Score:
    """What a task's metric gives: shares of the items in percent, all else as lm-eval has it."""

    value: float
    standard_error: float | None
    higher_is_better: bool

    def row(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "value": self.value,
            "stderr": self.standard_error,
            "higher_is_better": self.higher_is_better,
        }


@dataclass(frozen=True)
class TaskResult:
    """One task's, or one group's, accuracy in percent and its other metrics.

    Attributes:
        accuracy: None where the task has none.
        standard_error: of the accuracy.
        normalized_accuracy: by the choices' lengths, where the task has it.
        items: questions.
        version: lm-eval's of the task.
        harness_version: lm-eval's own.
        others: all other metrics, by name, with the filter of the answers if that is not `none`.
        subtasks: of a group or tag, by name, groups within it too.
    """

    accuracy: float | None
    standard_error: float | None
    normalized_accuracy: float | None
    items: int
    version: str
    harness_version: str
    others: dict[str, Score] = field(default_factory=dict)
    subtasks: dict[str, "TaskResult"] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """As a part of an evaluation's record."""
        found = {
            name: {**task._scores(), "n": task.items, "version": task.version}
            for name, task in self.subtasks.items()
        }
        row = {"kind": "tasks", **self._scores(), **_source(self)}
        return {**row, "subtasks": found} if found else row

    def _scores(self) -> dict[str, Any]:
        """The accuracy where there is one, and all other metrics."""
        row: dict[str, Any] = {}
        if self.accuracy is not None:
            row["acc"] = self.accuracy
            row["acc_stderr"] = self.standard_error
            row["acc_norm"] = self.normalized_accuracy
        if self.others:
            row["metrics"] = {name: score.row() for name, score in self.others.items()}
        return row


@dataclass(frozen=True)
class WordPerplexityResult:
    """What lm-eval calls perplexity: per word or byte of the text, whatever the tokenizer."""

    word_perplexity: float
    byte_perplexity: float
    bits_per_byte: float
    items: int  # documents
    version: str  # lm-eval's version of the task
    harness_version: str

    def row(self) -> dict[str, Any]:
        """As a part of an evaluation's record."""
        return {
            "kind": "texts",
            "word_perplexity": self.word_perplexity,
            "byte_perplexity": self.byte_perplexity,
            "bits_per_byte": self.bits_per_byte,
            **_source(self),
        }


def _source(scored: TaskResult | WordPerplexityResult) -> dict[str, Any]:
    return {"n": scored.items, "version": scored.version, "harness": scored.harness_version}
