"""Recovery: what a pruned model keeps of the dense one's quality."""

import numpy as np
import pandas as pd

from thanos.reporting.labels import DENSE
from thanos.reporting.measures import FROM_DENSE

# A share is that of the same quantity: model, metric and data, measured by the same protocol.
_SAME = ["model", "model_path", "quantization", "metric", "dataset", "n", "context", "source"]
_SAME += ["add_bos"]
# The headline metrics as shares: their names and factors.
_NAMES = {"perplexity": "perplexity_ratio", "mean_acc": "mean_acc_share"}
_FACTORS = {"perplexity": 1.0, "mean_acc": 100.0}


def with_share_of_dense(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with `share_of_dense`: each value over the dense model's of the same quantity.

    The dense model is the one as it is stored, also for models that were trained. Empty where no
    dense run of that model was measured alike, or its value is zero. 1.05 of a perplexity is 5%
    worse than dense, 0.95 of an accuracy too.
    """
    dense = frame[(frame["pattern"] == DENSE) & (frame["recovery"] == "")].drop_duplicates(_SAME)
    reference = frame[_SAME].merge(dense[[*_SAME, "value"]], on=_SAME, how="left")["value"]
    share = frame["value"].to_numpy() / reference.replace(0.0, np.nan).to_numpy()
    return frame.assign(share_of_dense=share)


def recovered(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with its headline metrics as shares of the dense model's, under names of their own.

    `perplexity_ratio` is a multiple, `mean_acc_share` in percent; rows without a share are left
    out, and what compares with the dense model anyway. What is no quality, such as the sparsity,
    stays.
    """
    frame = frame[~frame["metric"].isin(FROM_DENSE)]
    quality = frame["metric"].isin(_NAMES)
    shares = frame[quality].dropna(subset="share_of_dense")
    factors = shares["metric"].map(_FACTORS).astype("float64")
    values = shares["share_of_dense"] * factors
    shares = shares.assign(
        metric=shares["metric"].map(_NAMES),
        value=values,
        stderr=shares["stderr"] * values / shares["value"],
    )
    return pd.concat([frame[~quality], shares], ignore_index=True)
