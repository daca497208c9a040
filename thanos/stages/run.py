"""One run without Snakemake: calibrate, prune, evaluate, save.

    python -m thanos model=hf model.path=<folder or hub id> method=thanos pattern=2:4 \\
        calibration=text calibration.path=a.txt evaluation=text evaluation.path=b.txt output_dir=out

Keys and defaults are in conf/config.yaml and its groups. `out` then holds config.yaml,
metrics.json, pruning.json and checkpoint/; it appears only when everything is done. Until then
the blocks that are finished lie in out.partial/, from where the same command goes on.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..artifacts import write_json, write_manifest, write_text
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
    from ..models import work_folder

    with work_folder(folder.with_name(f"{folder.name}.partial")) as work:
        unfinished = work / "output"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        metrics = run(config, unfinished, work)
        unfinished.rename(folder)
    for corpus, result in metrics.get("perplexity", {}).items():
        sys.stdout.write(f"perplexity of {corpus}: {result['perplexity']:.4f}\n")
    for task, result in metrics.get("zero_shot", {}).get("tasks", {}).items():
        sys.stdout.write(f"accuracy on {task}: {result['acc']:.2f}%\n")
    sys.stdout.write(f"written: {folder}\n")


def run(config: Config, folder: Path, work: Path) -> dict[str, Any]:
    """Do one run, write its files to `folder` and return its metrics.

    Args:
        config: of the run.
        folder: empty.
        work: a folder that outlives a run which is killed, for what need not be done again.
    """
    # Checking a configuration takes milliseconds; torch and transformers are imported after it.
    from ..evaluation.zero_shot import check_tokenizer
    from ..models import copy_checkpoint
    from ..provenance import provenance
    from ..testbed.continuations import TESTBED_TASK
    from .calibrate import draw_windows
    from .continuations import write_task
    from .corpora import cut_corpora
    from .efficiency import measure_efficiency
    from .evaluate import measure_perplexity, measure_size, measure_zero_shot
    from .opening import (
        blocks_for_evaluation,
        dense_folder,
        open_dense,
        open_for_evaluation,
        open_pruned,
        open_tokenizer,
    )
    from .prune import prune

    started = time.time()
    # Whatever can be missing is read before the work starts.
    tokenizer = open_tokenizer(config)
    if config.evaluation.tasks:
        check_tokenizer(tokenizer)
    corpora = cut_corpora(config)
    drawn = None if config.dense else draw_windows(config)
    metrics: dict[str, Any] = {}
    checkpoint = folder / "checkpoint"
    if drawn is None:
        checkpoint.mkdir()
        copy_checkpoint(dense_folder(config), {}, tokenizer, checkpoint)
    else:
        windows, facts = drawn
        record = {**prune(config, windows, checkpoint, work), "calibration": facts}
        write_json(folder / "pruning.json", {**record, "provenance": provenance(config, started)})
        metrics["pruning"] = {k: v for k, v in record.items() if k != "layers"}
    write_manifest(checkpoint, {"provenance": provenance(config, started)})
    if config.evaluation.corpora:
        blocks = blocks_for_evaluation(config, checkpoint)
        metrics["perplexity"] = measure_perplexity(config, blocks, *corpora, scratch=work)
    if config.evaluation.tasks:
        model = open_for_evaluation(config, checkpoint)
        with tempfile.TemporaryDirectory() as scratch:
            items = Path(scratch) / "continuations"
            if TESTBED_TASK in config.evaluation.tasks:
                write_task(items)
            metrics["zero_shot"] = measure_zero_shot(config, model, tokenizer, items)
    metrics["size"] = measure_size(checkpoint)
    if config.evaluation.efficiency and not config.dense:
        pruned = open_pruned(config, checkpoint)
        metrics["efficiency"] = measure_efficiency(config, open_dense(config), pruned)
    write_text(folder / "config.yaml", dumps(config))
    write_json(folder / "metrics.json", {**metrics, "provenance": provenance(config, started)})
    return metrics
