"""One run without Snakemake: calibrate, prune, evaluate, save.

    python -m thanos model=hf model.path=<folder or hub id> method=thanos pattern=2:4 \\
        calibration=text calibration.path=a.txt evaluation=text evaluation.path=b.txt output_dir=out

Keys and defaults are in conf/config.yaml and its groups. `out` then holds config.yaml,
metrics.json, pruning.json and checkpoint/; it appears only when everything is done.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..artifacts import atomic_folder, write_json, write_manifest, write_text
from ..config import Config, dumps, resolve
from ..errors import UserError
from .command import parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; see the module's docstring."""
    options = parser(__doc__)
    options.add_argument("overrides", nargs="*", metavar="key=value")
    config = resolve(options.parse_args(arguments).overrides)
    if config.output_dir is None:
        raise UserError("key 'output_dir' must be given: the folder to write, which must not exist")
    folder = Path(config.output_dir)
    if folder.exists():
        raise UserError(f"output_dir {folder} exists already; give another or remove it")
    with atomic_folder(folder) as temporary:
        metrics = run(config, temporary)
    for corpus, result in metrics.get("perplexity", {}).items():
        sys.stdout.write(f"perplexity of {corpus}: {result['perplexity']:.4f}\n")
    for task, result in metrics.get("zero_shot", {}).get("tasks", {}).items():
        sys.stdout.write(f"accuracy on {task}: {result['acc']:.2f}%\n")
    sys.stdout.write(f"written: {folder}\n")


def run(config: Config, folder: Path) -> dict[str, Any]:
    """Do one run, write its files to `folder` and return its metrics."""
    # Checking a configuration takes milliseconds; torch and transformers are imported after it.
    from ..models import save_checkpoint
    from ..provenance import provenance
    from ..testbed.continuations import TESTBED_TASK
    from .calibrate import draw_windows
    from .continuations import write_task
    from .corpora import cut_corpora
    from .opening import open_dense, open_for_evaluation, open_tokenizer
    from .perplexity import measure_perplexity
    from .prune import prune
    from .zero_shot import measure_zero_shot

    started = time.time()
    # Whatever can be missing is read before the work starts.
    tokenizer = open_tokenizer(config)
    corpora = cut_corpora(config)
    windows = None if config.dense else draw_windows(config)
    model = open_dense(config)
    metrics: dict[str, Any] = {}
    if windows is not None:
        record = prune(config, model, windows)
        write_json(folder / "pruning.json", {**record, "provenance": provenance(config, started)})
        metrics["pruning"] = {k: v for k, v in record.items() if k != "layers"}
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir()
    save_checkpoint(model, tokenizer, checkpoint)
    write_manifest(checkpoint, {"provenance": provenance(config, started)})
    model = open_for_evaluation(config, checkpoint)
    if config.evaluation.corpora:
        metrics["perplexity"] = measure_perplexity(config, model, *corpora)
    if config.evaluation.tasks:
        with tempfile.TemporaryDirectory() as scratch:
            items = Path(scratch) / "continuations"
            if TESTBED_TASK in config.evaluation.tasks:
                write_task(items)
            metrics["zero_shot"] = measure_zero_shot(config, model, tokenizer, items)
    write_text(folder / "config.yaml", dumps(config))
    write_json(folder / "metrics.json", {**metrics, "provenance": provenance(config, started)})
    return metrics
