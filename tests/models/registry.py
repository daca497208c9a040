"""Try every causal language model that transformers knows, as tiny as it gets: what works?

    python tests/models/registry.py [kind ...] [--output docs/architectures.md]

Each is written to a folder and goes through what the program does with a folder: read block by
block, its logits compared bit for bit with the whole model's, pruned by Thanos to 50%, written,
opened again. A layer that the program asks to leave dense is left dense and said.
"""

import argparse
import contextlib
import logging
import os
import re
import tempfile
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from tiny_configs import tiny_config
from transformers import AutoModelForCausalLM
from transformers import __version__ as VERSION  # noqa: N812
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as KINDS
from whole_logits import whole_logits

from thanos.errors import UserError
from thanos.models import (
    FinishedBlocks,
    StreamedBlocks,
    copy_checkpoint,
    load_model,
    prune_model,
)
from thanos.models.context import longest_window
from thanos.pruning import PruningResult, prune_weight
from thanos.pruning.permutation import column_order

WORKS, WITH_SKIP, REFUSED = "works", "works with `model.skip`", "refused"
NOT_CONSTRUCTIBLE, TRACEBACK = "not constructible", "traceback"
_INTRODUCTION = f"""# Which architectures work

Made by `python tests/models/registry.py --output docs/architectures.md`; `make test-slow` checks
that it is still true. With transformers {VERSION}, every causal language model it knows, with
a tiny configuration and random weights, is read block by block, gives the whole model's logits bit
for bit, is pruned by Thanos to 50%, written, and opened again. In how many of its layers channels
can change places (`method.channel_permutation`) is said; they do, at random, and the logits stay.

"Works with `model.skip`" says what the program's one line asked for: layers that it cannot prune,
left dense. What is refused is refused by the line given, before any block is pruned.

"""
_SKIP = re.compile(r"model\.skip=\[([^\]]+)\]")


@dataclass(frozen=True)
class Tried:
    """What became of one kind of model."""

    kind: str
    verdict: str
    reason: str = ""


def try_kind(kind: str) -> Tried:
    """Build one kind of model and put it through the program."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        try:
            model = AutoModelForCausalLM.from_config(tiny_config(kind), dtype=torch.float32).eval()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.05 * torch.randn_like(parameter))
            model.save_pretrained(folder)
            load_model(folder).save_pretrained(folder)  # as transformers itself leaves it
            del model
        except Exception as error:
            return Tried(kind, NOT_CONSTRUCTIBLE, _line(error).replace(str(folder), "<folder>"))
        try:
            return _put_through(kind, folder, Path(name))
        except UserError as error:
            return Tried(kind, REFUSED, _line(error).replace(str(folder), "<folder>"))
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)
            ours = [f for f in place if "/thanos/" in f.filename or "/tests/" in f.filename][-1]
            where = f"{Path(ours.filename).name}:{ours.lineno}"
            return Tried(kind, TRACEBACK, f"{where} {type(error).__name__}: {_line(error)}")


@torch.no_grad()
def _put_through(kind: str, folder: Path, work: Path) -> Tried:
    whole = load_model(folder)
    limit = longest_window(whole.config.get_text_config(decoder=True)) or 64
    vocabulary = whole.get_input_embeddings().weight.shape[0]
    draw = torch.Generator().manual_seed(1)
    windows = torch.randint(3, min(vocabulary, 200), (3, min(limit, 64)), generator=draw)
    blocks = StreamedBlocks(folder)
    streamed = whole_logits(blocks, windows, 2)
    expected = torch.cat([whole(b, use_cache=False).logits for b in windows.split(2)])
    assert torch.equal(streamed, expected), "logits differ"

    skip: list[str] = []
    while True:
        try:
            layers = _pruned(folder, windows, skip, work / f"with-{len(skip)}")
            break
        except UserError as error:
            asked = _SKIP.search(str(error))
            if asked is None or asked[1].split(",") == skip:
                raise
            skip = asked[1].split(",")
    free = _reordered(whole, windows, skip)
    given = torch.cat([whole(b, use_cache=False).logits for b in windows.split(2)])
    torch.testing.assert_close(given, expected, rtol=1e-3, atol=1e-4)
    found = f"{layers} layers pruned, {free} with channels that can change places"
    if skip:
        return Tried(kind, WITH_SKIP, f"{found}, `model.skip=[{','.join(skip)}]`")
    return Tried(kind, WORKS, found)


def _reordered(model, windows, skip):
    """Put all channels that can move in any order, removing nothing; of how many layers."""
    free = []

    def reorder(weight, _, channels=None):
        if channels is None:
            return PruningResult(weight, weight == 0, 0.0, None, None, {})
        free.append(channels)
        order = torch.stack([torch.randperm(channels.shape[1]) for _ in channels])
        moved = weight[:, column_order(channels, order, weight.shape[1])]
        return PruningResult(moved, moved == 0, 0.0, None, None, {}, order)

    prune_model(model, windows, reorder, statistics="none", skip=skip, permutation=True)
    return len(free)


def _pruned(folder: Path, windows: torch.Tensor, skip: list[str], work: Path) -> int:
    finished = FinishedBlocks(work, {})
    source = StreamedBlocks(folder, finished=finished)

    def prune(weight, inputs):
        return prune_weight(weight, inputs, "thanos", "0.5")

    def data_free(weight, _):
        return prune_weight(weight, None, "magnitude", "0.5")

    records = prune_model(
        source, windows, prune, statistics="gram", batch_size=2, skip=skip, data_free=data_free
    )
    (work / "pruned").mkdir()
    copy_checkpoint(folder, finished.tensors, work / "pruned")
    opened = load_model(work / "pruned")
    assert torch.isfinite(opened(windows, use_cache=False).logits).all(), "logits not finite"
    assert all(abs(r.sparsity - 0.5) < 0.02 for r in records), "another sparsity than asked for"
    return len(records)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:400] or type(error).__name__


def to_markdown(tried: list[Tried]) -> str:
    """A table of all kinds, and how many of each verdict there are."""
    verdicts = (WORKS, WITH_SKIP, REFUSED, NOT_CONSTRUCTIBLE, TRACEBACK)
    counts = {verdict: sum(t.verdict == verdict for t in tried) for verdict in verdicts}
    total = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    lines = ["| model_type | verdict | |", "|---|---|---|"]
    lines += [f"| {t.kind} | {t.verdict} | {t.reason.replace('|', '/')} |" for t in tried]
    return f"{_INTRODUCTION}{len(tried)} kinds: {total}.\n\n" + "\n".join(lines) + "\n"


def main() -> None:
    """Entry point; see the module's docstring."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("kinds", nargs="*", default=list(KINDS))
    arguments.add_argument("--output", type=Path)
    given = arguments.parse_args()
    tried = []
    with Path(os.devnull).open("w") as nowhere:
        for kind in given.kinds:
            with contextlib.redirect_stderr(nowhere):
                tried.append(try_kind(kind))
            print(f"{kind}: {tried[-1].verdict}: {tried[-1].reason}", flush=True)
    if given.output:
        given.output.write_text(to_markdown(tried))


if __name__ == "__main__":
    main()
