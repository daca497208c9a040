"""Verdicts, by hand-made numbers."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from thanos.errors import UserError
from thanos.regression.compare import compare
from thanos.regression.golden import Golden, Tolerance, accepted, read_golden, write_golden
from thanos.regression.measured import Cell, Measured, block_seconds
from thanos.regression.render import to_junit, to_markdown, to_table

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
