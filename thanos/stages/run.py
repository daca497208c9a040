"""One run without Snakemake: calibrate, prune, evaluate, save.

    python -m thanos model=hf model.path=<folder or hub id> method=thanos pattern=2:4 \\
        calibration=text calibration.path=a.txt evaluation=text evaluation.path=b.txt output_dir=out

Keys and defaults are shown by `python -m thanos --help`. `out` then holds config.yaml,
metrics.json, pruning.json and checkpoint/, with a recovery that of the trained model and
recovery.json; it appears only when everything is done. Until then what is finished lies in
out.partial/, from where the same command goes on.
"""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..artifacts import write_json, write_manifest, write_text
from ..command import parser
from ..config import PLACE_KEYS, Folders, Run, RunBuilder, dumps, key_of, refuse_unused, resolve
from ..errors import UserError
from ..paths import expanded


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; see the module's docstring."""
    options = parser(__doc__)
    options.add_argument("overrides", nargs="*", metavar="key=value")
    options.add_argument("--config-dir", nargs="*", default=[], metavar="folder")
    given = options.parse_args(arguments)
    run_into(given.overrides, tuple(given.config_dir))


def run_into(overrides: Sequence[str], folders: Folders = ()) -> None:
    """Do one run and write it to `output_dir`, whole or not at all.

    Raises:
        UserError: the configuration is wrong, or `output_dir` missing or there already.
    """
    config = resolve(overrides, folders)
    refuse_unused(config, overrides)
    if config.output_dir is None:
        raise UserError("key 'output_dir' must be given: the folder to write, which must not exist")
    tracked = [text for text in overrides if key_of(text).partition(".")[0] == "tracking"]
    if tracked and config.tracking.mode != "disabled":
        raise UserError(f"{tracked[0]!r} has no effect with output_dir: only suites are tracked")
    folder = expanded(config.output_dir)
    if folder.exists():
        raise UserError(f"output_dir {folder} exists already; give another or remove it")
    run = RunBuilder().run(config, [o for o in overrides if key_of(o) not in PLACE_KEYS])
    from ..models import work_folder

    with work_folder(folder.with_name(f"{folder.name}.partial")) as work:
        unfinished = work / "output"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        metrics = carry_out(run, unfinished, work)
        made = {"run": run.name, "overrides": list(run.overrides), "spec": run.evaluation.to_json()}
        made |= {"config_dir": list(folders)} if folders else {}
        write_json(unfinished / "metrics.json", {**made, **metrics})
        write_text(unfinished / "config.yaml", dumps(config))
        unfinished.rename(folder)
        for done in ("measurements", *(spec.id for spec in (run.pruning, run.recovery) if spec)):
            shutil.rmtree(work / done, ignore_errors=True)
    from ..reporting.collecting import scored_tasks

    for corpus, result in metrics["perplexity"].items():
        sys.stdout.write(f"perplexity of {corpus}: {result['perplexity']:.4f}\n")
    for corpus, result in metrics.get("divergences", {}).items():
        sys.stdout.write(f"divergence from dense on {corpus}: {result['divergence']:.4g} nats\n")
        sys.stdout.write(f"same top token as dense on {corpus}: {result['same_top']:.2f}%\n")
    for task, result in scored_tasks(metrics["zero_shot"]["tasks"]).items():
        if "acc" in result:
            sys.stdout.write(f"accuracy on {task}: {result['acc']:.2f}%\n")
        for metric, score in result.get("metrics", {}).items():
            sys.stdout.write(f"{metric} on {task}: {score['value']:.4g}\n")
    sys.stdout.write(f"written: {folder}\n")


def carry_out(run: Run, folder: Path, work: Path) -> dict[str, Any]:
    """Do one run, write checkpoint and record to `folder` and return its metrics.

    Args:
        run: what to make.
        folder: empty.
        work: a folder that outlives a run which is killed, for what need not be done again.
    """
    # Checking a configuration takes milliseconds; torch and transformers are imported after it.
    from ..opening import dequantized_folder
    from ..reporting.collecting import mean_accuracy
    from .dequantize import make_once
    from .efficiency import measure_latency
    from .evaluate import Inputs, evaluate
    from .prune import prune

    spec, place = run.evaluation, run.place
    checkpoint = folder / "checkpoint"
    if spec.base.gguf is not None:
        make_once(spec.base, place, dequantized_folder(spec.base, place))
    tokens, windows, items = _texts(run, work)
    metrics: dict[str, Any] = {}
    pruned = None
    if spec.pruning is not None:
        pruned = checkpoint if spec.recovery is None else work / "pruned"
        record = prune(spec.pruning, place, tokens, pruned, work / spec.pruning.id)
        write_json(folder / "pruning.json", record)
        metrics["pruning"] = {k: v for k, v in record.items() if k != "layers"}
    if spec.recovery is not None:
        from .recover import recover

        home = work / spec.recovery.id
        home.mkdir(exist_ok=True)
        record = recover(spec.recovery, place, pruned, work / "text", checkpoint, home)
        write_json(folder / "recovery.json", record)
        metrics["recovery"] = {k: v for k, v in record.items() if k not in ("layers", "losses")}
    elif spec.pruning is None:
        _copy_dense(run, checkpoint)
    evaluated = None if spec.pruning is None and spec.recovery is None else checkpoint
    inputs = Inputs(evaluated, windows, items, work / "measurements")
    results = evaluate(spec, place, inputs)
    metrics |= {
        "perplexity": results["corpora"],
        **({"divergences": results["divergences"]} if spec.divergence else {}),
        "zero_shot": {
            "tasks": results["tasks"],
            "texts": results["texts"],
            "mean_acc": mean_accuracy(results["tasks"]),
        },
        "size": results["size"],
    }
    if run.latency is not None:
        metrics["efficiency"] = measure_latency(run.latency, place, checkpoint)
    return metrics


def _texts(run: Run, work: Path) -> tuple[Path | None, list[Path], Path | None]:
    """Tokens, windows and items; all that can be missing is read before the long work starts.

    What a recovery trains on goes into the folder `text` of the work folder.
    """
    from ..evaluation.zero_shot import check_tokenizer, load_task
    from ..opening import open_tokenizer
    from ..testbed.continuations import TASKS_FOLDER, TESTBED_TASK
    from .calibrate import calibrate
    from .continuations import write_task
    from .corpora import cut_corpus

    spec, place = run.evaluation, run.place
    items = None
    if TESTBED_TASK in spec.tasks:
        items = work / "continuations"
        write_task(items)
    if spec.tasks:
        check_tokenizer(open_tokenizer(spec.base, place))
    for task in spec.tasks:
        load_task(task, place.mirror, TASKS_FOLDER, items)
    windows = [work / "windows" / cut.id for cut in spec.windows]
    for cut, folder in zip(spec.windows, windows, strict=True):
        cut_corpus(cut, place, folder)
    tokens = None
    if spec.pruning and spec.pruning.calibration:
        tokens = work / "calibration"
        calibrate(spec.pruning.calibration, place, tokens)
    if spec.recovery is not None:
        calibrate(spec.recovery.text, place, work / "text")
    return tokens, windows, items


def _copy_dense(run: Run, checkpoint: Path) -> None:
    from ..models import copy_checkpoint
    from ..opening import dense_folder

    model, place = run.evaluation.base, run.place
    checkpoint.mkdir()
    copy_checkpoint(dense_folder(model, place), {}, checkpoint)
    write_manifest(checkpoint, {"spec": model.to_json()})
