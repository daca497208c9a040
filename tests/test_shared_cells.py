"""What runs of a suite are called, and which would share a cell of a table."""

import pytest

from thanos.config import resolve
from thanos.errors import UserError
from thanos.workflow.suites import load_suite


def test_what_is_named_in_two_ways_is_one_run(write_suite):
    """An option that stands for others, and those."""
    options = {"method.refine_steps": 20, "method.order": ["block", "sublayer"]}
    options |= {"method.correction": [0, 0.75], "method.damping": 0.01}
    options |= {"method.channel_permutation": True}
    write_suite(
        {
            "common": {"model": "doc-llama", "calibration": "docstrings", "pattern": "2:4"},
            "runs": [{"method": "thanos-plus"}, {"method": "admm", **options}],
        }
    )
    runs = load_suite("mine").runs
    assert [run.columns["label"] for run in runs] == ["thanos-plus", "admm", "admm", "admm"]


def test_a_method_has_one_label_whatever_it_prunes(write_suite):
    """A row of a table has all seeds, also where a block that spells it out has more of them."""
    options = {"method.refine_steps": 20, "method.order": "sublayer", "method.correction": 0.75}
    options |= {"method.damping": 0.01, "method.channel_permutation": True}
    common = {"model": ["doc-llama", "doc-opt"], "calibration": "docstrings", "pattern": "2:4"}
    spelt = {"method": "admm", **options, "seed": [0, 1, 2]}
    plain = {"method": "admm", "method.damping": 0.01, "seed": 0}
    for blocks in ([{"method": "thanos-plus"}, spelt], [spelt, {"method": "thanos-plus"}]):
        write_suite({"common": common, "runs": [plain, *blocks]})
        runs = load_suite("mine").runs
        assert [run.columns["label"] for run in runs] == ["admm"] * 2 + ["thanos-plus"] * 6
        for run in runs:
            assert resolve(list(run.overrides)).method.label == run.columns["label"]
            assert run.name.split("/")[-1].startswith(f"{run.columns['label']}-")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"runs": [{"method": "thanos", "method.damping": [0.1, 0.2]}]},
            "doc-llama/2-4/thanos-.* and doc-llama/2-4/thanos-.* would share a cell of a table "
            "and differ in damping: give each a method.label of its own, make that an axis or",
        ),
        (
            {"runs": [{"method": "wanda"}, {"method": "wanda", "method.update": "joint"}]},
            "differ in block_size, damping, mask_update: give each",
        ),
        (
            {"runs": [{"method": "wanda"}, {"method": "wanda", "model.skip": ["[mlp.up_proj]"]}]},
            "differ in nothing that tables tell: give each",
        ),
        (
            {
                "runs": [
                    {"method": "wanda", "model.path": ["testbed/doc-llama", "testbed/doc-opt"]}
                ],
                "common": {"model": "hf", "model.name": "mine"},
            },
            "differ in model_path: give each model a model.name of its own",
        ),
        (
            {
                "runs": [{"method": "thanos", "method.damping": [0.1, 0.2], "seed": [0, 1]}],
                "axis": "method.block_size",
                "common": {"method.block_size": [32, 64]},
            },
            "differ in damping",
        ),
        (
            {"runs": [{"method": ["thanos", "wanda"], "method.label": "mine"}]},
            "method.label 'mine' is of two methods, thanos and wanda; give each a label of its own",
        ),
    ],
)
def test_what_would_share_a_cell_is_refused_before_it_is_computed(write_suite, content, message):
    common = {"model": "doc-llama", "pattern": "2:4", **content.get("common", {})}
    write_suite({**content, "common": common})
    with pytest.raises(UserError, match=f"^suite mine: .*{message}"):
        load_suite("mine")


def test_labels_and_axes_keep_apart_what_would_share_a_cell(write_suite):
    strong = {"method.damping": 0.2, "method.label": "strong"}
    common = {"model": "doc-llama", "pattern": "2:4", "seed": [0, 1]}
    write_suite({"common": common, "runs": [{"method": "thanos"}, {"method": "thanos", **strong}]})
    assert [run.columns["label"] for run in load_suite("mine").runs] == ["thanos"] * 2 + [
        "strong"
    ] * 2
    axes = {"method": "thanos", "method.damping": [0.1, 0.2]}
    write_suite({"common": common, "runs": [axes], "axis": "method.damping"})
    assert len(load_suite("mine").runs) == 4
    write_suite(
        {"common": {**common, "calibration.windows": [8, 16]}, "runs": [{"method": "thanos"}]}
    )
    assert len(load_suite("mine").runs) == 4  # a column each
