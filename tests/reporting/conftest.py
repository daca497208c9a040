"""Finished runs, as the stages write them."""

from pathlib import Path

import pytest
from results_folder import ResultsFolder

from thanos.config import Run

# Perplexity by model, pattern and method ("+" is α = 0.1); numbers like the prototype's.
PERPLEXITY = {
    "doc-llama": {
        "dense": {"dense": 32.56},
        "0.5": {"magnitude": 34.54, "wanda": 34.01, "sparsegpt": 33.43, "thanos": 33.15},
        "structured:0.3": {
            **{"magnitude": 122.2, "wanda": 56.9, "sparsegpt": 37.66},
            **{"thanos": 35.89, "thanos+": 35.76},
        },
        "4:8": {
            **{"magnitude": 36.44, "wanda": 36.2, "sparsegpt": 33.78},
            **{"thanos": 33.56, "thanos+": 33.38},
        },
        "2:4": {
            **{"magnitude": 38.09, "wanda": 38.1, "sparsegpt": 34.43},
            **{"thanos": 33.94, "thanos+": 33.67},
        },
    }
}
PERPLEXITY["doc-opt"] = {
    pattern: {method: round(1.25 * value, 2) for method, value in row.items()}
    for pattern, row in PERPLEXITY["doc-llama"].items()
}


@pytest.fixture
def results(tmp_path: Path) -> ResultsFolder:
    """An empty results folder."""
    return ResultsFolder(tmp_path / "results")


@pytest.fixture
def demo_runs(results: ResultsFolder) -> list[Run]:
    """Both models, every pattern and method."""
    runs = []
    for model, patterns in PERPLEXITY.items():
        for pattern, methods in patterns.items():
            for method, value in methods.items():
                alpha = 0.1 if method.endswith("+") else 0.0
                name = method.rstrip("+")
                acc = 90 - value / 2
                runs.append(results.run(model, pattern, name, value, alpha=alpha, acc=acc))
    return runs
