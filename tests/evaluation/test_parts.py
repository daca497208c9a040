"""Each corpus and task is measured once, kept, and measured again when its causes have changed."""

import json
import shutil

import pytest
import torch

from thanos.artifacts import write_manifest
from thanos.config import RunBuilder, resolve
from thanos.errors import UserError
from thanos.evaluation.quantization import quantize_model
from thanos.identity import fingerprints
from thanos.models import load_model
from thanos.stages import evaluate as stage
from thanos.stages.corpora import cut_corpus, read_corpus
from thanos.stages.evaluate import Inputs, evaluate

PIQA = {"goal": "stand", "sol1": "rise", "sol2": "fall", "label": 0}
SCORING = "thanos.evaluation.zero_shot"


@pytest.fixture
def mirror(tmp_path):
    folder = tmp_path / "mirror"
    for name in ("ptb", "wikitext2", "zeroshot"):
        (folder / name).mkdir(parents=True)
    (folder / "ptb" / "ptb.test.txt").write_text(" one two three \n" * 20)
    (folder / "wikitext2" / "wiki.test.raw").write_text(" = One = \n \n" + " four five \n" * 20)
    (folder / "zeroshot" / "piqa.jsonl").write_text(json.dumps(PIQA) + "\n")
    return folder


class Measuring:
    """Evaluates the dense model; knows what it measured since it was last asked."""

    def __init__(self, folder, dense, mirror, monkeypatch):
        self.folder, self.parts = folder, folder / "parts"
        self.given = ["model=hf", f"model.path={dense}", "model.context=32", "method=dense"]
        self.given += [f"mirror={mirror}", "device=cpu"]
        self.measured = []
        perplexity, zero_shot = stage.perplexity_of_logits, stage.zero_shot

        def perplexity_of_logits(logits, tokens):
            self.measured.append("perplexity")
            return perplexity(logits, tokens)

        def score(model, tokenizer, task, **options):
            result = zero_shot(model, tokenizer, task, **options)
            self.measured.append(task)
            return result

        monkeypatch.setattr(stage, "perplexity_of_logits", perplexity_of_logits)
        monkeypatch.setattr(stage, "zero_shot", score)

    def __call__(self, corpora, tasks=(), *more, checkpoint=None):
        self.measured.clear()
        lists = [f"evaluation.corpora=[{corpora}]", f"evaluation.tasks=[{','.join(tasks)}]"]
        run = RunBuilder().run(resolve([*self.given, *lists, *more]))
        windows = [self.folder / "windows" / spec.id for spec in run.evaluation.windows]
        for spec, folder in zip(run.evaluation.windows, windows, strict=True):
            if not folder.exists():
                cut_corpus(spec, run.place, folder)
        inputs = Inputs(checkpoint, windows, None, self.parts)
        return evaluate(run.evaluation, run.place, inputs)

    def file(self, corpus):
        (found,) = self.parts.glob(f"{corpus}-*.json")
        return found


@pytest.fixture
def measure(tmp_path, dense_folder, mirror, monkeypatch):
    return Measuring(tmp_path, dense_folder, mirror, monkeypatch)


def test_what_is_known_is_not_measured_again(measure):
    both = measure("ptb,wikitext2", ["piqa"])
    assert measure.measured == ["perplexity", "perplexity", "piqa"]
    assert {file.name.rpartition("-")[0] for file in measure.parts.iterdir()} == {
        *("ptb", "wikitext2", "piqa", "dense"),
    }
    assert measure("ptb,wikitext2", ["piqa"]) == both
    assert measure.measured == []
    alone = measure("wikitext2")  # another evaluation shares its parts
    assert measure.measured == []
    assert alone["corpora"] == {"wikitext2": both["corpora"]["wikitext2"]}
    assert alone["size"] == both["size"]
    assert both["corpora"]["ptb"]["provenance"]["used"]["dtype"] == "float32"
    # Where and in what pieces it is computed makes it no other result.
    measure("ptb", (), "evaluation.batch_size=1", "hidden_memory=0")
    assert measure.measured == []


def test_another_question_is_another_part(measure):
    first = measure("ptb", ["piqa"])
    second = measure("ptb", ["piqa"], "evaluation.max_windows=2", "evaluation.limit=1")
    assert measure.measured == ["perplexity", "piqa"]
    assert second["corpora"]["ptb"]["windows"] == 2 < first["corpora"]["ptb"]["windows"]
    assert (first["tasks"]["piqa"]["limit"], second["tasks"]["piqa"]["limit"]) == (80, 1)
    measure("ptb", ["piqa"], "evaluation.quantization=int8")
    assert measure.measured == ["perplexity", "piqa"]


def test_predictions_are_compared_with_the_dense_model_by_option(measure, dense_folder, model):
    """Block by block it is what both whole models say; perplexities are not measured again."""
    int4 = ["evaluation.quantization=int4", "evaluation.max_windows=3"]
    plain = measure("ptb", (), *int4)
    assert "divergences" not in plain
    compared = measure("ptb", (), *int4, "evaluation.divergence=true")
    assert measure.measured == []
    assert compared["corpora"] == plain["corpora"]
    found = compared["divergences"]["ptb"]

    (folder,) = (folder for folder in (measure.folder / "windows").iterdir())
    tokens, _ = read_corpus(folder)
    quantized = load_model(dense_folder, dtype=torch.float32)
    quantize_model(quantized, "int4")
    with torch.no_grad():
        log_p, log_q = (
            whole(input_ids=tokens).logits[:, :-1].double().log_softmax(-1)
            for whole in (load_model(dense_folder, dtype=torch.float32), quantized)
        )
    nats = (log_p.exp() * (log_p - log_q)).sum(-1).mean(1)
    same = 100 * (log_p.argmax(-1) == log_q.argmax(-1)).double().mean(1)
    assert nats.min() > 1e-4  # the two do differ
    # float32 sums of some hundred terms
    assert found["window_divergences"] == pytest.approx(nats.tolist(), rel=1e-4)
    assert found["window_same_top"] == pytest.approx(same.tolist())
    assert found["divergence"] == pytest.approx(nats.mean().item(), rel=1e-4)

    # In mapped files, one window at a time: the same.
    shutil.rmtree(measure.parts)
    pieces = ["evaluation.batch_size=1", "hidden_memory=0", "evaluation.divergence=true"]
    again = measure("ptb", (), *int4, *pieces)["divergences"]["ptb"]
    assert again["divergence"] == pytest.approx(found["divergence"], rel=1e-5)
    assert not list(measure.parts.glob("hidden*"))


@pytest.mark.parametrize(
    "harm",
    [
        lambda file: file.write_text(file.read_text().replace("32", "33", 1)),
        lambda file: file.write_text("{}"),
    ],
)
def test_a_damaged_part_is_measured_again(measure, harm, caplog):
    first = measure("ptb,wikitext2")
    harm(measure.file("ptb"))
    again = measure("ptb,wikitext2")
    assert measure.measured == ["perplexity"]
    assert f"{measure.file('ptb')} is not used" in caplog.text
    assert again["corpora"]["ptb"]["perplexity"] == first["corpora"]["ptb"]["perplexity"]
    assert again["corpora"]["wikitext2"] == first["corpora"]["wikitext2"]


def test_changed_code_data_or_windows_are_measured_again(measure, mirror, monkeypatch):
    measure("ptb,wikitext2", ["piqa"])

    (mirror / "zeroshot" / "piqa.jsonl").write_text(2 * (json.dumps(PIQA) + "\n"))
    assert measure("ptb,wikitext2", ["piqa"])["tasks"]["piqa"]["n"] == 2
    assert measure.measured == ["piqa"]

    (folder,) = (measure.folder / "windows").glob("ptb-*")
    folder.rename(folder.with_name("old"))
    (mirror / "ptb" / "ptb.test.txt").write_text(" one two six \n" * 20)
    measure("ptb,wikitext2", ["piqa"])
    assert measure.measured == ["perplexity"]

    hashes = fingerprints.source_hashes

    def with_other_scoring(*given):
        found = hashes(*given)
        return {name: "new" if name == SCORING else found[name] for name in found}

    monkeypatch.setattr(fingerprints, "source_hashes", with_other_scoring)
    measure("ptb,wikitext2", ["piqa"])
    assert measure.measured == ["piqa"]


def test_the_weights_that_were_measured_are_a_cause(measure, dense_folder):
    """Of a pruned model the checkpoint counts, whatever its spec says."""
    measure.given = [key for key in measure.given if key != "method=dense"]
    measure.given += ["method=magnitude", "layer_errors=false"]
    write_manifest(dense_folder, {})
    first = measure("ptb", checkpoint=dense_folder)
    measure("ptb", checkpoint=dense_folder)
    assert measure.measured == []

    other = dense_folder.with_name("other")
    other.mkdir()
    for file in dense_folder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    weights = other / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-2] + b"\0\0")
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        measure("ptb", checkpoint=other)
    write_manifest(other, {})
    second = measure("ptb", checkpoint=other)
    assert measure.measured == ["perplexity"]
    assert second["corpora"]["ptb"]["perplexity"] != first["corpora"]["ptb"]["perplexity"]


def test_what_describes_a_pruned_model_is_a_cause_too(measure, dense_folder, tmp_path):
    """A hub model's configuration or tokenizer can change while the pruned weights stay."""
    measure.given = [key for key in measure.given if key != "method=dense"]
    measure.given += ["method=magnitude", "layer_errors=false"]
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(dense_folder, checkpoint)
    write_manifest(checkpoint, {})
    (measure("ptb", checkpoint=checkpoint), measure("ptb", checkpoint=checkpoint))
    assert measure.measured == []
    file = checkpoint / "config.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps({**values, "description": "another"}))
    write_manifest(checkpoint, {})
    measure("ptb", checkpoint=checkpoint)
    assert measure.measured == ["perplexity"]
