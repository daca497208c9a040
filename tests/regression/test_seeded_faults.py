"""Faults that would spoil the science without stopping it turn the comparison red."""

import json
from importlib import import_module
from xml.etree import ElementTree

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def replace(module: str, name: str, make) -> None:
    """Put `make(original)` in place of a function, in this process only."""
    owner = import_module(f"thanos.{module}")
    setattr(owner, name, make(getattr(owner, name)))


def masks_without_column_norms():
    def make(original):
        return lambda metric, *rest: original("magnitude" if metric == "wanda" else metric, *rest)

    replace("pruning.prune", "_column_scale", make)


def update_with_the_wrong_sign():
    def make(original):
        def update(W, factor, i1, i2, mask, *rest):
            before = W.clone()
            solved = original(W, factor, i1, i2, mask, *rest)
            W.copy_(2 * before - W)
            W[:, i1:i2].masked_fill_(mask, 0)
            return solved

        return update

    replace("pruning.masking", "joint_update", make)


def update_left_out():
    def make(_):
        def update(W, factor, i1, i2, mask, *rest):
            W[:, i1:i2].masked_fill_(mask, 0)
            return 0

        return update

    replace("pruning.masking", "joint_update", make)


def damping_a_thousandfold():
    def make(original):
        def prune(*given, **options):
            if "damping" in options:
                options["damping"] *= 1000
            return original(*given, **options)

        return prune

    replace("pruner", "prune_weight", make)


def calibration_seed_ignored():
    def make(original):
        def sample(documents, tokenizer, windows, seqlen, seed, **options):
            return original(documents, tokenizer, windows, seqlen, 0, **options)

        return sample

    replace("stages.calibrate", "sample_windows", make)


def one_weight_too_few_per_group():
    def make(original):
        return lambda scores, removed, m: original(scores, removed - 1, m)

    replace("pruning.masking", "smallest_per_group", make)


def perplexity_windows_overlap():
    def make(_):
        from thanos.data.windows import token_ids

        def cut(text, tokenizer, seqlen, most, **options):
            return token_ids(text, tokenizer).unfold(0, seqlen, seqlen // 2)[:most].clone()

        return cut

    replace("stages.corpora", "cut_windows", make)


FAULTS = [
    masks_without_column_norms,
    update_with_the_wrong_sign,
    update_left_out,
    damping_a_thousandfold,
    calibration_seed_ignored,
    one_weight_too_few_per_group,
    perplexity_windows_overlap,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_seeded_fault_turns_it_red(regress, tmp_path, fault):
    status, said = regress(fault)

    assert status == 1, said
    assert "REGRESSED" in said or "MOVED" in said, said
    suite = ElementTree.parse(tmp_path / "r.xml").getroot()[0]
    assert int(suite.get("failures")) == len(suite.findall("testcase/failure")) > 0
    # Values by which it is caught, not only that tokens differ.
    caught = {case.get("name").split()[0] for case in suite if case.find("failure") is not None}
    assert caught - {"tokens"}, said


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("repetition", range(1, 6))
def test_the_tree_as_it_is_stays_green(regress, tmp_path, repetition, threads):
    status, said = regress(threads=threads)

    assert status == 0, said
    assert " 0 failed" in said
    records = [json.loads(file.read_text()) for file in tmp_path.glob("results/pruned/*/*.json")]
    assert {record["provenance"]["used"]["threads"] for record in records} == {threads}
