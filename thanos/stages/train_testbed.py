"""Rebuild one of the testbed's models from the docstring corpus: tokenizer, weights, record.

    python -m thanos.stages.train_testbed doc-llama --output results/testbed/models/doc-llama

Takes about an hour per model on one core. Beside the weights it writes training.json (recipe,
corpus hashes, versions, held-out loss) and training_log.csv.
"""

import dataclasses
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from ..artifacts import atomic_folder, write_json, write_text
from ..command import parser, run_command
from ..data.windows import cut_windows
from ..evaluation.perplexity import perplexity
from ..testbed.corpus import DISTRIBUTIONS, PACKAGES, SPLITS, Document, corpus_hash, extract
from ..testbed.tokenizer import train_tokenizer
from ..testbed.training import CONTEXT, Recipe, architectures, train

EVALUATION_BATCH = 16


def build(name: str, recipe: Recipe, folder: Path) -> None:
    """Train model `name` and write it in half precision to `folder`, with the record of its making.

    Args:
        name: a key of `architectures()`.
        recipe: hyperparameters and seed.
        folder: where the model goes, as a Hugging Face folder.
    """
    splits = read_splits()
    training_texts = [document.text for document in splits["train"]]
    tokenizer = train_tokenizer(training_texts, CONTEXT)
    tokens = []
    for ids in tokenizer(training_texts, verbose=False)["input_ids"]:
        tokens += [tokenizer.eos_token_id, *ids]

    torch.manual_seed(recipe.seed)
    model = AutoModelForCausalLM.from_config(architectures()[name])
    lines = ["step,loss"]
    with tqdm(total=recipe.steps, desc=name, unit="step", disable=None) as bar:

        def log(step: int, loss: float) -> None:
            lines.append(f"{step},{loss:.5f}")
            bar.update()

        train(model, torch.tensor(tokens), recipe, log)
    made = {"recipe": dataclasses.asdict(recipe), "training_tokens": len(tokens)}
    ship(model, tokenizer, splits, made, lines, folder)


def read_splits() -> dict[str, list[Document]]:
    """The corpus' documents by split."""
    splits: dict[str, list[Document]] = {split: [] for split in SPLITS}
    for document in extract():
        splits[document.split].append(document)
    return splits


def ship(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    splits: dict[str, list[Document]],
    made: dict[str, Any],
    log: list[str],
    folder: Path,
) -> None:
    """Judge a trained model on held-out text and write it in half precision, with its record.

    Args:
        model: as trained.
        tokenizer: that its tokens were made with.
        splits: the corpus.
        made: recipe and number of training tokens.
        log: lines of training_log.csv.
        folder: where the model goes, as a Hugging Face folder.
    """
    model = model.half().float()  # judged as shipped
    text = "\n\n".join(document.text for document in splits["heldout"])
    result = perplexity(model, cut_windows(text, tokenizer, CONTEXT), EVALUATION_BATCH)
    with atomic_folder(folder) as temporary:
        model.half().save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        record = {
            **made,
            "parameters": model.num_parameters(),
            "heldout_loss": result.loss,
            "heldout_perplexity": result.perplexity,
            "heldout_windows": result.windows,
            "corpus_sha256": {split: corpus_hash(splits[split]) for split in SPLITS},
            "versions": dict(zip(PACKAGES, map(version, DISTRIBUTIONS), strict=True)),
            "python": platform.python_version(),
        }
        write_json(temporary / "training.json", record)
        write_text(temporary / "training_log.csv", "\n".join(log) + "\n")


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("name", choices=sorted(architectures()))
    arguments.add_argument("--steps", type=int, default=Recipe.steps)
    arguments.add_argument("--output", type=Path, required=True)
    given = arguments.parse_args()
    build(given.name, dataclasses.replace(Recipe(), steps=given.steps), given.output)


if __name__ == "__main__":
    run_command(main)
