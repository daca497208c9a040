"""Where things lie below a results folder: one home for each, named by its spec."""

from pathlib import Path

MODELS = "models"  # <id>/ of a model that is stored in a GGUF file, as safetensors
CALIBRATION = "calibration"  # <id>/ of calibration tokens
WINDOWS = "windows"  # <id>/ of the windows of one corpus
PRUNED = "pruned"  # <id>/ with the record and the checkpoint
RECOVERED = "recovered"  # likewise, of a model that was trained after it was pruned
EVALUATIONS = "evaluations"  # <id>/ with everything measured of one model for one purpose
MEASUREMENTS = "measurements"  # <id>.json of one corpus, one task or the size
LATENCIES = "latencies"  # <id>/ of one pruned model
CONTINUATIONS = "testbed/continuations"  # items of the testbed's task
SUITES = "suites"  # <suite>/ with its runs, table of results, tables, figures, report
SWEEPS = "sweeps"  # suite/<name>.yaml of every sweep by hand

RECORD = "pruning.json"
RECOVERY = "recovery.json"
CHECKPOINT = "checkpoint"
EVALUATION = "evaluation.json"
LATENCY = "latency.json"
RUNS = "runs.json"
CAPTIONS = "captions.json"  # in the folder of a suite's figures
INDEX = "index.html"  # of all suites
THINGS = ".things.json"  # what the last workflow was asked for is made of, for its jobs

# What releases before the first specs wrote, which nothing reads any more.
OLDER = ("runs", "evaluation")


def results_of(runs: Path) -> Path:
    """The results folder that a suite's list of runs lies in."""
    return runs.absolute().parent.parent.parent
