"""The tidy frames of all results of a set of runs: their columns, types and files."""

import io

import pandas as pd

from thanos.errors import UserError
from thanos.reporting.measures import FROM_DENSE

COLUMNS = (
    "run",
    "model",
    "calibration",
    "method",
    "pattern",
    "outlier_fraction",
    "seed",
    "metric",
    "dataset",
    "value",
    # of the measurement
    "stderr",
    "n",  # windows or questions
    "context",  # tokens per window of a perplexity
    "source",  # corpus hash, task version, tasks of a mean, or form and device of a timing
    "share_of_dense",  # value over the same model's dense one, measured alike
    "higher_is_better",  # of a task's own metrics, as lm-eval says: 1 or 0
    # of the configuration
    "label",
    "nominal_sparsity",
    "evaluation",
    "quantization",
    "outlier_score",
    "model_path",
    "calibration_source",
    "calibration_windows",
    "block_size",
    "damping",
    "refine_steps",
    "iterations",
    "penalty",
    "schedule",
    "order",
    "correction",
    "mask",
    "channel_permutation",
    "allocation",
    "allocation_spread",
    "allocation_unit",
    "reconstruction_steps",
    "reconstruction_rate",
    "reconstruction_batch",
    "reconstruction_precision",
    "mask_metric",
    "mask_scope",
    "mask_update",
    "add_bos",
    "recovery",
    "recovery_steps",
    "learning_rate",
    "distillation",
)
LAYER_COLUMNS = (
    *COLUMNS[:7],  # of the run
    *COLUMNS[16:],  # of the configuration; damping is the one that the layer needed
    "block",
    "layer",
    "layer_type",
    "rows",
    "columns",
    "sparsity",
    "relative_error",
    "seconds",
)
WINDOW_COLUMNS = ("run", "dataset", "window", "loss", *FROM_DENSE)
_TEXT = {
    *("run", "model", "calibration", "method", "pattern", "metric", "dataset", "source"),
    *("label", "evaluation", "quantization", "model_path", "calibration_source"),
    *("mask_metric", "mask_scope", "mask_update", "outlier_score", "layer", "layer_type"),
    *("order", "mask", "allocation", "allocation_unit", "reconstruction_precision", "recovery"),
}
_INTEGERS = {"seed", "block", "rows", "columns", "window"}


def to_csv(frame: pd.DataFrame) -> str:
    """The frame as CSV; numbers are written so that reading them back gives the same bits."""
    return frame.to_csv(index=False, lineterminator="\n")  # shortest repr of every float


class OtherColumnsError(UserError):
    """A table of results was written by a version of this program with other columns."""


def from_csv(text: str) -> pd.DataFrame:
    """The inverse of `to_csv`.

    Raises:
        OtherColumnsError: results or layers lack a column that they have today.
    """
    kinds = dict.fromkeys(_TEXT, str)
    frame = pd.read_csv(  # whole columns, or their types would hang on where they are cut
        io.StringIO(text), dtype=kinds, keep_default_na=False, na_values={}, low_memory=False
    )
    known = LAYER_COLUMNS if "layer" in frame else COLUMNS if "metric" in frame else ()
    if missing := [column for column in known if column not in frame]:
        raise OtherColumnsError(
            f"a table of results has no column {missing[0]}: another version wrote it; "
            "let snakemake make the suite again"
        )
    return typed(frame)


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Fixed types, so that a frame does not depend on which runs happen to be in it."""
    for column in frame.columns:
        if column in _TEXT:
            frame[column] = frame[column].map(lambda x: "" if pd.isna(x) else str(x)).astype("str")
        else:
            kind = "int64" if column in _INTEGERS else "float64"
            frame[column] = pd.to_numeric(frame[column]).astype(pd.api.types.pandas_dtype(kind))
    return frame
