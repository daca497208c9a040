"""A small results tree, written as the other stages write it."""

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

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
SPARSITY = {"0.5": 0.5, "structured:0.3": 0.3, "4:8": 0.5, "2:4": 0.5}
ATTENTION, MLP = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
TYPES = (*(f"self_attn.{name}" for name in ATTENTION), *(f"mlp.{name}" for name in MLP))

WriteRun = Callable[..., Path]


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """Write one run folder and return it; keyword arguments are the config's scalars."""

    def write(
        model: str = "doc-llama",
        pattern: str = "2:4",
        method: str = "thanos",
        perplexity: float = 33.94,
        *,
        alpha: float = 0.0,
        seed: int = 0,
        block_size: int = 512,
        windows: int = 64,
        seqlen: int = 256,
        source: str = "docs",
        path: str | None = None,
        corpus: str = "docs",
        acc: float | None = None,
        noise: Callable[[int], float] = lambda window: 0.0,
        options: dict | None = None,
    ) -> Path:
        config = {
            "seed": seed,
            "model": {"name": model, "path": path or f"thanos/testbed/{model}", "context": seqlen},
            "calibration": {"name": source, "source": source, "windows": windows, "seqlen": seqlen},
            "method": {
                "name": method,
                "block_size": block_size,
                "damping": 0.01,
                **(options or {}),
            },
            "pattern": pattern,
            "outlier_fraction": alpha,
            "evaluation": {"name": "docs", "tasks": ["docs_choice"] if acc is not None else []},
        }
        digest = hashlib.sha256(yaml.safe_dump(config).encode()).hexdigest()[:8]
        folder = tmp_path / "runs" / model / pattern.replace(":", "-") / f"{method}-{digest}"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        result = {"perplexity": perplexity, "loss": 3.5, "windows": 100, "seqlen": seqlen}
        # Windows differ in difficulty, and all runs find the same ones difficult.
        losses = [
            math.log(perplexity) + 0.1 * (window - 4.5) + noise(window) for window in range(10)
        ]
        corpora = {corpus: {**result, "corpus_sha256": "c0ffee", "window_losses": losses}}
        _write(folder / "perplexity.json", {"corpora": corpora})
        if pattern != "dense":
            reached = SPARSITY.get(pattern, 0.5) * (1 - alpha if ":" in pattern[:2] else 1)
            _write(folder / "pruning.json", _pruning(reached, method))
        if acc is not None:
            task = {"acc": acc, "acc_stderr": 1.5, "n": 800, "version": 1.0}
            _write(folder / "zero_shot.json", {"tasks": {"docs_choice": task}, "mean_acc": acc})
        return folder

    return write


@pytest.fixture
def demo_runs(write_run: WriteRun) -> list[Path]:
    """Both models, every pattern and method."""
    folders = []
    for model, patterns in PERPLEXITY.items():
        for pattern, methods in patterns.items():
            for method, value in methods.items():
                alpha = 0.1 if method.endswith("+") else 0.0
                acc = 90 - value / 2
                name = method.rstrip("+")
                folders.append(write_run(model, pattern, name, value, alpha=alpha, acc=acc))
    return folders


def _pruning(sparsity: float, method: str) -> dict:
    scale = {"magnitude": 3.0, "wanda": 2.0, "sparsegpt": 1.2}.get(method, 1.0)
    layers = [
        {
            "block": block,
            "layer": f"model.layers.{block}.{kind}",
            "shape": [256, 256],
            "sparsity": sparsity,
            "relative_error": 0.01 * scale * (1 + block) * (1 + 0.2 * index),
            "seconds": 0.1,
            "damping": 0.01,
            "details": {},
        }
        for block in range(4)
        for index, kind in enumerate(TYPES)
    ]
    totals = {"sparsity": sparsity, "relative_error": 0.02, "seconds": 3.5}
    return {**totals, "peak_memory_bytes": 123456789, "layers": layers}


def _write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content))
