"""Rebuild one of the testbed's models from the docstring corpus: tokenizer, weights, record.

    python -m thanos.stages.train_testbed doc-llama --output results/testbed/models/doc-llama

Takes about an hour per model on one core. Beside the weights it writes training.json (recipe,
corpus hashes, versions, held-out loss) and training_log.csv.
"""

import dataclasses
import platform
from importlib.metadata import version
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM

from ..artifacts import atomic_folder, write_json, write_text
from ..data.windows import cut_windows
from ..evaluation.perplexity import perplexity
from ..testbed.corpus import PACKAGES, SPLITS, corpus_hash, extract
from ..testbed.tokenizer import train_tokenizer
from ..testbed.training import CONTEXT, Recipe, architectures, train
from .command import parser, run_command

EVALUATION_BATCH = 16


def build(name: str, recipe: Recipe, folder: Path) -> None:
    """Train model `name` and write it in half precision to `folder`, with the record of its making.

    Args:
        name: a key of `architectures()`.
        recipe: hyperparameters and seed.
        folder: where the model goes, as a Hugging Face folder.
    """
    splits: dict[str, list] = {split: [] for split in SPLITS}
    for document in extract():
        splits[document.split].append(document)
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
    model = model.half().float()  # judged as shipped
    text = "\n\n".join(document.text for document in splits["heldout"])
    result = perplexity(model, cut_windows(text, tokenizer, CONTEXT), EVALUATION_BATCH)
    with atomic_folder(folder) as temporary:
        model.half().save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        record = {
            "recipe": dataclasses.asdict(recipe),
            "parameters": model.num_parameters(),
            "training_tokens": len(tokens),
            "tokens_seen": recipe.steps * recipe.batch_size * CONTEXT,
            "heldout_loss": result.loss,
            "heldout_perplexity": result.perplexity,
            "heldout_windows": result.windows,
            "corpus_sha256": {split: corpus_hash(splits[split]) for split in SPLITS},
            "versions": {name: version(_distribution(name)) for name in PACKAGES},
            "python": platform.python_version(),
        }
        write_json(temporary / "training.json", record)
        write_text(temporary / "training_log.csv", "\n".join(lines) + "\n")


def _distribution(package: str) -> str:
    return {"sklearn": "scikit-learn"}.get(package, package)


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
