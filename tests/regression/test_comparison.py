"""Verdicts, by hand-made numbers."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from results_folder import ResultsFolder

from thanos.config import RunBuilder, resolve
from thanos.errors import UserError
from thanos.regression.compare import compare
from thanos.regression.golden import Golden, Tolerance, accepted, read_golden, write_golden
from thanos.regression.measured import Cell, Measured, block_seconds, measure
from thanos.regression.render import to_junit, to_markdown, to_table

from .conftest import GOLDEN

GROUP = "doc-llama 2:4 *"


def cell(method, perplexity, seconds=1.0, group=GROUP, **more):
    metrics = {"perplexity docs": perplexity, "sparsity": 0.5, "tokens docs": "abc", **more}
    return Cell(group, method, metrics, seconds)


@pytest.fixture
def measured():
    cells = [cell("thanos", 20.0, 2.0), cell("sparsegpt", 21.0), cell("wanda", 23.0)]
    return Measured({c.name: c for c in cells}, {"lock file": "1", "corpus docs": "2"})


@pytest.fixture
def golden(measured):
    tolerances = {
        "perplexity": Tolerance("relative", 0.01, "rounding"),
        "sparsity": Tolerance("absolute", 0.0, "counted"),
        "time ratio": Tolerance("factor", 3.0, "a busy machine"),
    }
    orderings = [("thanos", "<=", "sparsegpt"), ("sparsegpt", "<", "wanda")]
    empty = Golden({}, orderings, [("thanos", "sparsegpt")], tolerances, {}, {})
    return accepted(empty, measured)


def verdicts(golden, measured):
    checks, changes = compare(golden, measured)
    return {f"{c.cell}: {c.metric}": c.verdict for c in checks if c.verdict != "ok"}, changes


def changed(measured, *cells, **conditions):
    return Measured(
        {**measured.cells, **{c.name: c for c in cells}}, {**measured.conditions, **conditions}
    )


def test_the_same_values_are_green(golden, measured):
    assert verdicts(golden, measured) == ({}, [])
    assert verdicts(golden, changed(measured, cell("wanda", 23.2))) == ({}, [])


def test_a_value_outside_its_tolerance_is_red_in_both_directions(golden, measured):
    worse = changed(measured, cell("wanda", 23.3))
    assert verdicts(golden, worse)[0] == {"doc-llama 2:4 wanda: perplexity docs": "REGRESSED"}
    better = changed(measured, cell("wanda", 22.7))
    assert verdicts(golden, better)[0] == {"doc-llama 2:4 wanda: perplexity docs": "MOVED"}


def test_other_tokens_of_the_same_corpus_are_red(golden, measured):
    other = changed(measured, cell("wanda", 23.0, **{"tokens docs": "abd"}))
    assert verdicts(golden, other)[0] == {"doc-llama 2:4 wanda: tokens docs": "MOVED"}


def test_the_order_of_the_methods_is_judged_within_one_run(golden, measured):
    wide = dict.fromkeys(golden.tolerances, Tolerance("factor", 9, "only the order is looked at"))
    loose = replace(golden, tolerances=wide)
    behind = changed(measured, cell("thanos", 21.5, 2.0))
    found = verdicts(loose, behind)[0]
    broken = {name for name, verdict in found.items() if verdict == "BROKEN"}
    assert broken == {"doc-llama 2:4: perplexity docs: thanos <= sparsegpt"}
    level = changed(measured, cell("thanos", 21.0, 2.0), cell("sparsegpt", 21.0))
    assert "BROKEN" not in verdicts(loose, level)[0].values()


def test_a_method_that_became_slow_is_red(golden, measured):
    slow = changed(measured, cell("thanos", 20.0, 7.0))
    assert verdicts(golden, slow)[0] == {"doc-llama 2:4: time ratio thanos/sparsegpt": "MOVED"}


def test_a_missing_run_is_red_and_a_new_one_is_named(golden, measured):
    del measured.cells["doc-llama 2:4 wanda"]
    found, _ = verdicts(golden, changed(measured, cell("mine", 19.0)))
    assert set(found.values()) == {"MISSING", "new"}


def test_another_corpus_or_lock_file_is_said_and_orderings_still_judged(golden, measured):
    other = changed(measured, cell("thanos", 30.0), **{"lock file": "3"})
    found, changes = verdicts(golden, other)
    assert changes == ["lock file: 1 → 3"]
    assert found.pop("doc-llama 2:4: perplexity docs: thanos <= sparsegpt") == "BROKEN"
    assert set(found.values()) == {"not comparable"}


def test_every_report_names_what_failed(golden, measured):
    checks, changes = compare(golden, changed(measured, cell("wanda", 25.0)))
    assert "REGRESSED" in to_table(checks, "simple").splitlines()[2]
    report = to_markdown(checks, changes, "summary")
    assert "| doc-llama 2:4 wanda" in report
    assert "± 1%: rounding" in report
    suite = ElementTree.fromstring(to_junit(checks, changes))[0]
    assert suite.get("tests") == str(len(suite)) == str(len(checks) + 1)
    (failure,) = suite.findall("testcase/failure")
    assert failure.get("message").startswith("REGRESSED: 23 → 25")


def test_a_golden_file_is_read_as_it_was_written(golden, tmp_path):
    write_golden(tmp_path / "golden.json", golden)
    assert read_golden(tmp_path / "golden.json") == golden


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tolerances": {"perplexity": {"relative": 0.1}}}, "tolerances.perplexity: .* a reason"),
        ({"orderings": [["a", ">", "b"]]}, "'>' is neither < nor <="),
        ({"values": None}, "no key 'values'"),
    ],
)
def test_a_malformed_golden_file_is_one_line(golden, tmp_path, change, message):
    file = tmp_path / "golden.json"
    write_golden(file, golden)
    content = {**json.loads(file.read_text()), **change}
    file.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    with pytest.raises(UserError, match=message):
        read_golden(file)


def test_a_missing_golden_file_says_how_to_write_one(tmp_path):
    with pytest.raises(UserError, match="accept --config golden="):
        read_golden(tmp_path / "mine.json")


def test_the_file_does_not_depend_on_the_order_of_the_runs(golden, tmp_path):
    write_golden(tmp_path / "one.json", golden)
    turned = dict(reversed(golden.values.items()))
    write_golden(tmp_path / "other.json", replace(golden, values=turned))
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "other.json").read_bytes()


def test_pruning_time_is_not_moved_by_a_delay_in_one_block():
    def layers(*delays):
        return [
            {"layer": f"model.layers.{block}.{name}", "seconds": seconds + delay}
            for block, delay in enumerate(delays)
            for name, seconds in (
                ("attn.q", 1.0),
                ("mlp.experts.0.up", 2.0),
                ("mlp.experts.1.up", 4.0),
            )
        ]

    assert block_seconds(layers(0.0, 0.0)) == block_seconds(layers(0.0, 9.0)) == 7.0
    assert block_seconds(layers(0.5, 9.0)) == 8.5


@pytest.fixture
def results(tmp_path):
    return ResultsFolder(tmp_path / "results")


def local_model(folder, weights="{}"):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text(weights)
    return str(folder)


def test_a_suite_is_measured_by_its_cells(results, tmp_path):
    setup = {"path": local_model(tmp_path / "model")}
    runs = [
        results.run("m", "dense", "dense", 20.0, acc=80.0, **setup),
        results.run("m", "2:4", "thanos", 25.0, acc=70.0, label="mine", alpha=0.1, **setup),
        results.run("m", "0.5", "wanda", 40.0, seed=1, **setup),
    ]
    measured = measure(results.write_list(runs))
    assert set(measured.cells) == {
        "m dense", "m 2:4 mine α=0.1", "m unstructured:0.5 wanda seed=1"
    }  # fmt: skip
    assert measured.cells["m dense"].metrics == {
        "perplexity docs": 20.0, "tokens docs": "70ce", "accuracy docs_choice": 80.0
    }  # fmt: skip
    pruned = measured.cells["m 2:4 mine α=0.1"]
    assert pruned.metrics.pop("tokens calibration")
    assert pruned.metrics == {
        "perplexity docs": 25.0, "recovery docs": 0.8, "tokens docs": "70ce",
        "accuracy docs_choice": 70.0, "sparsity": 0.45, "relative error": 0.02,
    }  # fmt: skip
    assert pruned.seconds == pytest.approx(0.7)
    model = runs[0].evaluation.base
    assert measured.conditions == {
        "lock file": "10cc", "torch": "2.13.0", "transformers": "unknown", "tokenizers": "unknown",
        "numpy": "unknown", "device": "CPU", "corpus docs": "c0ffee",
        "calibration corpus docs": "ca11b7a7e",
        "model m": model.description[:6] + model.weights[:6],
    }  # fmt: skip


def test_a_model_on_the_hub_is_known_by_its_commit(results):
    inputs = {"model org/m": "c0331700000000000000"}
    made = {"fingerprint": {"code": {}, "libraries": {}, "inputs": inputs}}
    runs = [results.run("m", "dense", "dense", path="org/m", made=made)]
    runs.append(results.run("m", path="org/m", made=made))
    assert measure(results.write_list(runs)).conditions["model m"] == "c03317000000"


def test_runs_of_different_conditions_are_refused(results, tmp_path):
    dense = results.run("m", "dense", "dense", path=local_model(tmp_path / "a"))
    other = results.run("m", path=local_model(tmp_path / "b", weights="[]"))
    with pytest.raises(UserError, match=f"{other.name}: model m is not that of the other runs"):
        measure(results.write_list([dense, other]))
    gpu = {"used": {"device": "cuda", "dtype": "float16", "threads": 2}}
    other = results.run("n", made=gpu, path=local_model(tmp_path / "a"))
    with pytest.raises(UserError, match=f"{other.name}: device is not that"):
        measure(results.write_list([dense, other]))


def test_two_runs_of_one_name_are_refused(results):
    runs = [results.run("m"), results.run("m", source="other")]
    with pytest.raises(UserError, match="two runs are called 'm 2:4 thanos'"):
        measure(results.write_list(runs))


def test_the_golden_values_are_of_the_shipped_model():
    shipped = RunBuilder().run(resolve(["model=doc-llama", "method=dense"])).evaluation.base
    golden = read_golden(GOLDEN).conditions["model doc-llama"]
    assert golden == shipped.description[:6] + shipped.weights[:6]
