"""The combination on a family that nothing was chosen on: Qwen3's shape, trained here."""

import copy
import math
from dataclasses import replace

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from thanos import prune
from thanos.data.sources import calibration_documents, evaluation_text
from thanos.data.windows import cut_windows
from thanos.evaluation.perplexity import perplexity
from thanos.stages.train_testbed import build
from thanos.testbed.training import CONTEXT, Recipe


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_thanos_plus_closes_the_gap_of_a_third_family(tmp_path):
    """A twentieth of the recipe's steps: the direction, not the figures."""
    build("doc-qwen", replace(Recipe(), steps=150), tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").float()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    documents = calibration_documents("docstrings", None, None)
    held_out = cut_windows(evaluation_text("docstrings", None, None), tokenizer, CONTEXT, 64)
    dense = perplexity(model, held_out, 16).loss
    for pattern in ("0.5", "2:4"):
        losses = {}
        for method in ("thanos", "thanos-plus"):
            pruned = copy.deepcopy(model)
            drawn = {"windows": 64, "context": CONTEXT, "tokenizer": tokenizer}
            prune(pruned, list(documents), method=method, pattern=pattern, **drawn)
            losses[method] = perplexity(pruned, held_out, 16).loss
        closed = (losses["thanos"] - losses["thanos-plus"]) / (losses["thanos"] - dense)
        print(f"{pattern}: dense {math.exp(dense):.2f}, ", end="")
        print(*(f"{name} {math.exp(loss):.2f}" for name, loss in losses.items()), f"{closed:.1%}")
        assert closed > 0.1
