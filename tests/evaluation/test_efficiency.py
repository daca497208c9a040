import json
import sys
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from thanos.artifacts import write_manifest
from thanos.compression.compact_linear import compact_linear
from thanos.config import RunBuilder, resolve
from thanos.errors import UserError
from thanos.evaluation import efficiency
from thanos.evaluation.efficiency import (
    Spread,
    alternate,
    count_parameters,
    decoding,
    forward_pass,
    multiplications,
    prefill,
    stored_bytes,
)
from thanos.evaluation.machine import Machine
from thanos.evaluation.serving import measure_serving
from thanos.evaluation.synthetic import FAMILIES
from thanos.identity import LatencySpec
from thanos.identity.fingerprints import fingerprint
from thanos.identity.spec import read_spec
from thanos.models import load_model, prune_model
from thanos.pruning import parse_pattern, prune_weight
from thanos.stages import efficiency as stage
from thanos.stages import speed
from thanos.stages.efficiency import compare, main, measure_latency

CPU = torch.device("cpu")


@pytest.fixture
def few_rounds(monkeypatch):
    """Three rounds: what is tested is not how fast this machine is."""
    monkeypatch.setattr(efficiency, "_MOST_ROUNDS", 3)


@pytest.fixture
def prune_folder(dense_folder, tmp_path):
    """Return `prune_folder(pattern)`: a pruned checkpoint, as the pruning stage leaves it."""

    def prune_folder(pattern):
        pruned = load_model(dense_folder)
        prune_model(
            pruned,
            None,
            lambda weight, statistics, **given: prune_weight(
                weight, statistics, "magnitude", pattern, **given
            ),
            statistics="none",
            units=pattern.startswith("heads-neurons"),
        )
        pruned.save_pretrained(tmp_path / "pruned")
        write_manifest(tmp_path / "pruned", {})
        return tmp_path / "pruned"

    return prune_folder


def run_of(folder, pattern="structured:0.3", *further):
    given = ["model=hf", f"model.path={folder}", "method=magnitude", f"pattern={pattern}"]
    return RunBuilder().run(resolve([*given, "evaluation.efficiency=true", "device=cpu", *further]))


def test_spread_is_median_and_range():
    assert Spread.of([3.0, 1.0, 10.0]) == Spread(3.0, 1.0, 10.0)


def test_candidates_alternate_and_reverse(few_rounds):
    order = []

    def candidate(name):
        def prepare():
            order.append(f"prepare {name}")
            return lambda: order.append(name)

        return prepare

    times = alternate({"a": candidate("a"), "b": candidate("b")}, CPU)

    a, b = ["prepare a", "a"], ["prepare b", "b"]
    assert order == [*a, *b, *b, *a, *a, *b, *b, *a, *a, *b]  # two rounds of warming up, then three
    assert {name: len(measured) for name, measured in times.items()} == {"a": 3, "b": 3}


def test_preparation_is_not_timed(few_rounds, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(efficiency, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    def spend(seconds):
        clock.now += seconds

    def prepare():
        spend(7.0)
        return lambda: spend(0.25)

    assert alternate({"a": prepare}, CPU)["a"] == [250, 250, 250]


def test_slow_candidates_get_fewer_rounds(monkeypatch):
    monkeypatch.setattr(efficiency, "_SECONDS", 0.0)

    assert len(alternate({"a": lambda: lambda: None}, CPU)["a"]) == 5


def test_parameters_and_multiplications_on_paper():
    network = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3), nn.LayerNorm(3))
    with torch.no_grad():
        network[0].weight.fill_(1)
        network[1].weight.fill_(1)
        network[1].weight[:, 2:] = 0
        network[1].bias.fill_(1)
    assert count_parameters(network) == 20 + 12 + 3 + 6
    assert stored_bytes(network, item_bytes=2) == 2 * (20 + 12 + 3 + 6)
    assert multiplications(network) == 12

    kept, none = torch.tensor([0, 1]), torch.tensor([], dtype=torch.int64)
    split = {"kept": kept, "outliers": none, "outlier_columns": none}
    network[1] = compact_linear(network[1].weight, network[1].bias, **split)
    assert multiplications(network) == 6
    assert stored_bytes(network, item_bytes=2) == 2 * (20 + 6 + 3 + 6) + 8 * 2


def test_decoding_goes_on_from_the_prompt(model):
    seen = []
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(
            (kwargs["input_ids"].shape[1], kwargs.get("past_key_values"))
        ),
        with_kwargs=True,
    )
    tokens = torch.arange(1, 9).view(1, 8)
    decoding(model, tokens, steps=3)()()
    forward_pass(model, tokens)()()
    hook.remove()

    assert [length for length, _ in seen] == [8, 1, 1, 1, 8]
    assert seen[1][1].get_seq_length() == 8 + 3


@pytest.mark.usefixtures("few_rounds")
def test_a_structured_run(dense_folder, prune_folder):
    run, checkpoint = run_of(dense_folder), prune_folder("structured:0.3")
    matrices = 2 * (4 * 16 * 16 + 3 * 16 * 32)

    results = measure_latency(run.latency, run.place, checkpoint)

    assert results["form"] == "compact"
    assert results["layers_changed"] == 14
    assert (results["stored_in"], results["computed_in"]) == ("float16", "float32")
    assert results["logits_difference"] < 1e-4
    parameters, sizes = results["parameters"], results["bytes"]
    assert parameters["compact"] < parameters["dense"] - 0.3 * matrices
    assert sizes["dense"] == 2 * parameters["dense"]
    assert sizes["compact"] < sizes["dense"]
    for part in ("forward", "decode"):
        measured = results[part]
        assert measured["dense_ms_low"] <= measured["dense_ms"] <= measured["dense_ms_high"]
        assert measured["speedup_low"] <= measured["speedup"] <= measured["speedup_high"]
        assert measured["ideal_speedup"] > 1.2
    assert results["forward"]["tokens"] == 128
    assert (results["decode"]["prompt_tokens"], results["decode"]["tokens"]) == (64, 16)


@pytest.mark.usefixtures("few_rounds")
def test_zeros_alone_promise_no_speed(dense_folder, prune_folder):
    run, checkpoint = run_of(dense_folder, "2:4"), prune_folder("2:4")

    results = measure_latency(run.latency, run.place, checkpoint)

    assert results["form"] == "zeros"  # no 2:4 kernels on a CPU
    assert results["logits_difference"] == 0
    assert results["forward"]["ideal_speedup"] == 1
    assert "compact" not in results["bytes"]


@pytest.fixture
def known_machine(monkeypatch):
    """A machine whose limits are known: nothing is measured of this one."""
    machine = Machine(products=1e9, bytes=1e8)
    monkeypatch.setattr(stage, "measure_machine", lambda device, dtype: machine)
    return machine


@pytest.mark.usefixtures("few_rounds", "known_machine")
def test_heads_and_neurons_are_served_as_a_narrow_model(dense_folder, prune_folder):
    asked = ("evaluation.serving_prompts=[8,9999]", "evaluation.serving_batches=[1,2]")
    run = run_of(dense_folder, "heads-neurons:0.5", *asked)

    results = measure_latency(run.latency, run.place, prune_folder("heads-neurons:0.5"))

    assert results["form"] == "narrow"
    assert results["layers_changed"] == 14
    assert results["logits_difference"] < 1e-4
    halves = 2 * (4 * 16 * 16 + 3 * 16 * 32) // 2
    assert results["parameters"]["dense"] - results["parameters"]["compact"] == halves
    longest = 128 - 16  # of the model's context, so that all steps fit
    assert list(results["serving"]) == ["1x8", f"1x{longest}", "2x8", f"2x{longest}"]
    for point in results["serving"].values():
        batch, prompt = point["batch"], point["prompt_tokens"]
        for part, tokens in (("prefill", batch * prompt), ("decode", batch)):
            times = point[part]
            for name in ("dense", "pruned"):
                per_second = 1e3 * tokens / times[f"{name}_ms"]
                assert times[f"{name}_tokens_per_second"] == pytest.approx(per_second)
            assert times["speedup_low"] <= times["speedup"] <= times["speedup_high"]
            assert times["pruned_limit_ms"] < times["dense_limit_ms"]
        own = 4 * results["parameters"]["dense"]
        assert point.get("dense_peak_bytes", own) >= own


@pytest.mark.usefixtures("few_rounds")
def test_the_limit_is_that_of_products_or_of_bytes(model):
    head, body = 257 * 16, 2 * (4 * 16 * 16 + 3 * 16 * 32)
    assert multiplications(model) == head + body

    def limits(machine, batch, prompt):
        models = {"dense": model, "pruned": model}
        (point,) = measure_serving(models, [batch], [prompt], 2, machine).values()
        return point["prefill"]["dense_limit_ms"], point["decode"]["dense_limit_ms"]

    by_products = limits(Machine(products=1e3, bytes=1e30), batch=2, prompt=5)
    assert by_products == (2 * (5 * body + head), 2 * (body + head))
    item = next(model.parameters()).element_size()
    by_bytes = limits(Machine(products=1e30, bytes=1e3), batch=2, prompt=5)
    assert by_bytes == (item * (body + head), item * (body + head))


def test_a_prompt_gives_the_logits_of_its_last_token(model):
    seen = []
    hook = model.lm_head.register_forward_hook(lambda m, args, output: seen.append(output.shape[1]))
    tokens = torch.arange(1, 9).view(1, 8)
    prefill(model, tokens)()()
    decoding(model, tokens, steps=2)()()
    hook.remove()
    assert seen == [1, 1, 1, 1]


def test_what_is_not_asked_for_names_no_latency(dense_folder):
    plain = run_of(dense_folder).latency
    assert plain.identity() == {"pruning": plain.pruning.id, "context": plain.context}
    more = run_of(dense_folder, "structured:0.3", "evaluation.serving_prompts=[8]").latency
    assert (more.prompts, more.batches) == ((8,), (1,))
    assert more.id != plain.id
    assert read_spec(LatencySpec, json.dumps(more.to_json())) == more


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["evaluation.serving_prompts=[0]"], r"serving_prompts is \[0\]; give numbers from 1"),
        (["evaluation.serving_prompts=[8,8]"], "each once"),
        (
            ["evaluation.serving_prompts=[8]", "evaluation.serving_batches=[]"],
            r"serving_batches is \[\]",
        ),
    ],
)
def test_servings_that_are_refused(dense_folder, asked, message):
    with pytest.raises(UserError, match=message):
        run_of(dense_folder, "structured:0.3", *asked)


@pytest.mark.usefixtures("few_rounds")
def test_the_stage_writes_one_file(dense_folder, prune_folder, tmp_path, monkeypatch):
    run, output = run_of(dense_folder), tmp_path / "latency.json"

    def latency(*arguments):
        command = ["efficiency", json.dumps(run.latency.to_json()), "--output", str(output)]
        command += ["--place", json.dumps(run.place.to_json())]
        monkeypatch.setattr(sys, "argv", [*command, *map(str, arguments)])
        main()
        return json.loads(output.read_text())

    checkpoint = prune_folder("structured:0.3")
    pruned = latency("--checkpoint", checkpoint)
    assert pruned["form"] == "compact"
    assert read_spec(LatencySpec, str(output)) == run.latency
    made = pruned["provenance"]
    assert (made["used"]["device"], made["used"]["dtype"]) == ("cpu", "float32")
    assert made["fingerprint"] == asdict(fingerprint(run.latency, run.place))

    (checkpoint / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"model\.safetensors is damaged.*rule prune"):
        latency("--checkpoint", checkpoint)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.0, 0.1])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_wide_model_is_faster(family, alpha):
    pair = speed.pruned_pair(family, 1024, 2, 256, "structured:0.3", alpha)

    results = compare(*pair, parse_pattern("structured:0.3"), 256, CPU)

    assert results["form"] == "compact"
    assert results["logits_difference"] < 1e-4
    assert results["forward"]["speedup"] > (1.2 if alpha == 0 else 1.05)
    assert results["forward"]["ideal_speedup"] > results["forward"]["speedup"]


@pytest.mark.usefixtures("few_rounds", "known_machine")
def test_the_speed_of_random_models_as_a_command(tmp_path, monkeypatch, capsys):
    command = "speed --hidden 128 --layers 1 --tokens 32 --families opt --alphas 0.1 --device cpu"
    command += " --prompts 8 --batches 2"
    monkeypatch.setattr(sys, "argv", [*command.split(), "--output", str(tmp_path / "speed")])

    speed.main()

    assert "Wanda (α=0.1)" in capsys.readouterr().out
    (measured,) = json.loads((tmp_path / "speed" / "speed.json").read_text())["measured"]
    assert (measured["model"], measured["form"]) == ("opt-128", "compact")
    assert measured["logits_difference"] < 1e-4
    names = {file.stem for file in (tmp_path / "speed").glob("*.md")}
    assert names == {"latency", "prefill", "decode"}
    assert "2 × 8" in (tmp_path / "speed" / "prefill.md").read_text()
