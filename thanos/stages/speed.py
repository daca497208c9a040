"""Measure what pruning does to the speed of wide random models: no checkpoint, no network.

    python -m thanos.stages.speed --output speed [--hidden 1024] [--layers 2] [--tokens 256] \\
        [--families llama opt] [--patterns structured:0.3] [--alphas 0 0.1] [--device cpu] \\
        [--prompts 128 512 --batches 1 8]

Structured models are made compact, heads-neurons narrow (with --alphas 0); 2:4 uses a GPU's kernels
where there are any, in half precision. With prompts also prefill and decoding apart.
Layers of LLaMA-7B: --families llama --hidden 4096 --patterns structured:0.3 2:4 --tokens 2048.
Nothing else should run on the machine meanwhile.
"""

import itertools
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedModel

from ..accelerator import is_accelerator
from ..artifacts import atomic_folder, write_json
from ..command import parser, run_command
from ..device import resolve_device, used
from ..evaluation.synthetic import FAMILIES, random_model
from ..identity.fingerprints import stage_fingerprint
from ..models import prune_model
from ..provenance import provenance
from ..pruning import HeadsAndNeurons, parse_pattern, prune_weight
from ..reporting.collecting import numbers
from ..reporting.efficiency import latency_table, serving_tables
from ..reporting.labels import VARIANT_COLUMNS
from .efficiency import compare
from .tabulate import RENDERERS

# Which columns go and which rows stay does not matter for speed.
_METHOD, _SCORE = "wanda", "separable"


def pruned_pair(
    family: str, hidden: int, layers: int, tokens: int, pattern: str, alpha: float
) -> tuple[PreTrainedModel, PreTrainedModel]:
    """A random model, and the same model pruned on random tokens; in float32 on the CPU."""
    dense, pruned = (random_model(family, hidden, layers, tokens) for _ in range(2))
    vocabulary = dense.config.vocab_size
    ids = torch.randint(vocabulary, (1, tokens), generator=torch.Generator().manual_seed(0))
    prune_model(
        pruned,
        ids,
        lambda weight, statistics, **given: prune_weight(
            weight,
            statistics,
            _METHOD,
            pattern,
            outlier_fraction=alpha,
            outlier_score=_SCORE,
            **given,
        ),
        statistics="diagonal",
        units=isinstance(parse_pattern(pattern), HeadsAndNeurons),
    )
    return dense, pruned


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    arguments.add_argument("--hidden", type=int, default=1024)
    arguments.add_argument("--layers", type=int, default=2)
    arguments.add_argument("--tokens", type=int, default=256)
    arguments.add_argument("--patterns", nargs="+", default=["structured:0.3"])
    arguments.add_argument("--alphas", nargs="+", type=float, default=[0.0, 0.1])
    arguments.add_argument("--prompts", nargs="+", type=int, default=[])
    arguments.add_argument("--batches", nargs="+", type=int, default=[1])
    arguments.add_argument("--device", default="auto")
    arguments.add_argument("--output", type=Path, required=True)
    given = arguments.parse_args()
    device, started = resolve_device(given.device), time.time()
    measured: list[dict[str, Any]] = []
    for family in given.families:
        for pattern in given.patterns:
            for alpha in given.alphas:
                pair = pruned_pair(family, given.hidden, given.layers, given.tokens, pattern, alpha)
                if is_accelerator(device):
                    pair[0].half(), pair[1].half()
                serving = {"batches": given.batches, "prompts": given.prompts}
                results = compare(*pair, parse_pattern(pattern), given.tokens, device, **serving)
                named = {"model": f"{family}-{given.hidden}", "pattern": pattern}
                measured.append({**named, "outlier_fraction": alpha, **results})
    frame = _frame(measured)
    tables = [latency_table(frame), *serving_tables(frame)]
    with atomic_folder(given.output) as folder:
        for table, (suffix, render) in itertools.product(tables, RENDERERS.items()):
            (folder / f"{table.name}.{suffix}").write_text(render(table), encoding="utf-8")
        made = provenance(started, stage_fingerprint("speed"), used=used(device, pair[0].dtype))
        write_json(folder / "speed.json", {"measured": measured, "provenance": made})
    sys.stdout.write("\n".join(RENDERERS["txt"](table) for table in tables))


def _frame(measured: list[dict[str, Any]]) -> pd.DataFrame:
    """The measurements in the form of a suite's results."""
    rows = []
    for results in measured:
        identity: dict[str, Any] = dict.fromkeys(VARIANT_COLUMNS, 0.0)  # off, but for the next
        identity |= {key: results[key] for key in ("model", "pattern", "outlier_fraction")}
        identity |= {"method": _METHOD, "seed": 0, "run": results["model"]}
        identity |= {"source": f"{results['form']} on {results['device']}"}
        rows += [
            {**identity, "metric": key, "value": x} for key, x in numbers(results, "efficiency")
        ]
    return pd.DataFrame(rows)


if __name__ == "__main__":
    run_command(main)
