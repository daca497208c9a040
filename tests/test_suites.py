"""Suites: products of axes, overrides and errors that name suite and block."""

from pathlib import Path

import pytest

from thanos.errors import UserError
from thanos.workflow import suite_files
from thanos.workflow.catalog import Catalog, things_of
from thanos.workflow.commands import of_suite
from thanos.workflow.hub import wanted
from thanos.workflow.suites import load_suite


def test_every_suite_and_its_variants_compose():
    ablations = ("block-size", "calibration", "components", "damping", "outliers", "quantization")
    ablations += ("sparsity",)
    expected = {"demo", "paper", "first-experiments", *(f"ablation-{name}" for name in ablations)}
    assert expected <= set(suite_files.suite_files())
    for name in suite_files.suite_files():
        whole, quick = load_suite(name), load_suite(name, size="quick")
        assert 0 < len(quick.runs) < len(whole.runs)
        if name.startswith("ablation-"):
            real = load_suite(name, size="real")
            assert 0 < len(real.runs) < len(whole.runs)
            assert {run.columns["model"] for run in real.runs} == {"smollm2-135m-q4"}
    with pytest.raises(UserError, match="suite real has no real variant"):
        load_suite("real", size="real")


def test_a_variant_has_a_folder_and_a_command_of_its_own(tmp_path):
    for name, size in (("real", ""), ("real", "quick"), ("ablation-damping", "real")):
        assert suite_files.suite_of(suite_files.folder_of(name, size)) == (name, size)
    commands = of_suite("ablation-damping-real", {}, Path("results"))
    assert commands["suite"] == "snakemake ablation-damping --config real=true"
    assert commands["verify"] == "snakemake verify --config suite=ablation-damping real=true"
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite" / "mine-real.yaml").write_text("runs: []")
    with pytest.raises(UserError, match="a name that ends in -real is a suite's variant; rename"):
        load_suite("mine-real", folders=(str(tmp_path),))


def test_the_demo_has_forty_runs():
    runs = load_suite("demo").runs
    assert len(runs) == 40
    assert len({run.name for run in runs}) == len({run.evaluation.id for run in runs}) == 40
    assert sum(run.pruning is None for run in runs) == 2


def test_a_run_keeps_its_folders_in_every_suite():
    demo = load_suite("demo", ["evaluation=perplexity"]).runs
    sweep = load_suite("ablation-outliers", ["outlier_fraction=0", "pattern=2:4"]).runs
    assert len(sweep) == 5
    assert {run.name for run in sweep} <= {run.name for run in demo}
    assert things_of(sweep).keys() <= things_of(demo).keys()


def test_overrides_replace_axes_but_leave_the_dense_reference():
    suite = load_suite("demo", ["model=doc-opt", "method=thanos,wanda", "method.damping=0.1"])
    columns = [run.columns for run in suite.runs]
    assert {point["model"] for point in columns} == {"doc-opt"}
    assert {(point["method"], point["damping"]) for point in columns} == {
        ("dense", None),
        ("thanos", 0.1),
        ("wanda", None),
    }


def test_calibration_is_shared_by_methods_but_not_by_seeds():
    runs = load_suite("ablation-calibration").runs
    assert len({run.pruning.calibration.id for run in runs if run.pruning}) == 6 * 3 * 3


@pytest.fixture(scope="module")
def demo():
    """The demo's catalog as it is without overrides."""
    catalog = Catalog()
    return catalog.digest("demo"), things_of(catalog.suite("demo").runs)


@pytest.mark.parametrize(
    "override",
    [
        *("device=cpu", "mirror=/data/mirror", "memory_budget=1000000", "hidden_memory=0.5"),
        "overlap=false",
        *("calibration.batch_size=3", "evaluation.batch_size=3", "evaluation.task_batch_size=3"),
        *("tracking=disabled", "tracking.project=mine"),
    ],
)
def test_where_it_is_computed_changes_no_thing_of_a_suite(demo, override):
    catalog = Catalog([override])
    digest, things = demo
    elsewhere = things_of(catalog.suite("demo").runs)
    assert elsewhere.keys() == things.keys()
    assert catalog.digest("demo") == digest
    places = {thing.place for thing in elsewhere.values()}
    assert places.isdisjoint({thing.place for thing in things.values()}) != ("tracking" in override)


@pytest.fixture
def noted(tmp_path):
    """All things of some suites, and the file where a catalog noted them."""
    catalog, file = Catalog(["device=cpu"], models_dir=tmp_path), tmp_path / "things.json"
    for name in ("paper", "recovery", "beyond", "ablation-quantization"):
        catalog.suite(name)
    catalog.note(file)
    return catalog._things, file


def test_jobs_find_what_they_make_without_composing_a_suite(noted, tmp_path, monkeypatch):
    """As many processes as there are jobs would; equal to the last attribute, and by their ids."""
    things, file = noted
    monkeypatch.setattr("thanos.workflow.catalog.load_suite", None)
    catalog = Catalog(["device=cpu"], models_dir=tmp_path, noted=file)
    for (kind, name), thing in things.items():
        found = catalog.thing(kind, name)
        assert (found, found.spec.id) == (thing, name)


def test_a_note_of_other_options_is_not_believed(noted, tmp_path):
    _, file = noted
    other = Catalog(["device=auto"], models_dir=tmp_path, noted=file)
    assert other._things == {}
    assert Catalog(["device=cpu"], noted=file)._things == {}
    for unreadable in (tmp_path / "none", tmp_path):
        assert Catalog(["device=cpu"], models_dir=tmp_path, noted=unreadable)._things == {}
    file.write_text(file.read_text().replace("wanda", "thanos", 1))
    assert Catalog(["device=cpu"], models_dir=tmp_path, noted=file)._things == {}


def points(name="mine", **options):
    """Method, pattern and block size of a suite's runs."""
    columns = [run.columns for run in load_suite(name, **options).runs]
    return [(point["method"], point["pattern"], point["block_size"]) for point in columns]


def test_excluded_points_are_left_out(write_suite):
    axes = {"method": ["dense", "wanda", "thanos"], "pattern": ["2:4", "4:8"]}
    write_suite({"runs": [axes], "exclude": [{"method": ["wanda", "magnitude"], "pattern": "4:8"}]})
    assert points() == [
        ("dense", "dense", None),
        ("wanda", "2:4", None),
        ("thanos", "2:4", 512),
        ("thanos", "4:8", 512),
    ]


def test_variants_are_named_overrides(write_suite):
    variants = {"small blocks": {"method.block_size": 8}, "4:8": {"pattern": "4:8"}}
    write_suite(
        {"runs": [{"variant": ["small blocks", "4:8"], "pattern": "2:4"}], "variants": variants}
    )
    assert points() == [("thanos", "2:4", 8), ("thanos", "4:8", 512)]
    assert points(overrides=["method.block_size=16"]) == [
        ("thanos", "2:4", 16),
        ("thanos", "4:8", 16),
    ]
    write_suite({"runs": [{"variant": "large"}], "variants": variants})
    with pytest.raises(UserError, match="mine, block 1, axis variant: unknown 'large'; known: 4:8"):
        load_suite("mine")


def test_errors_name_suite_and_axis(write_suite):
    write_suite({"runs": [{"method": "dense"}, {"method": ["thanos", "obs"], "seed": [0, 1]}]})
    with pytest.raises(UserError, match="suite mine, block 2, axis method: unknown method 'obs'"):
        load_suite("mine")
    write_suite({"runs": [{"method": "thanos", "method.blocksize": [8, 16]}]})
    with pytest.raises(UserError, match=r"mine, block 1, axis method.blocksize: unknown key"):
        load_suite("mine")
    write_suite({"runs": [{"method": "thanos", "pattern": ["2:4", "5:4"]}]})
    with pytest.raises(UserError, match="mine, block 1, axis pattern: pattern '5:4'"):
        load_suite("mine")
    write_suite({"runs": [{"method": "thanos"}], "axis": "method.damping"})
    with pytest.raises(UserError, match=r"suite mine: axis 'method\.damping' is no key of its"):
        load_suite("mine")
    write_suite({"runs": [{"method": "thanos"}], "axes": []})
    with pytest.raises(UserError, match="suite mine: unknown key 'axes'"):
        load_suite("mine")
    write_suite(["thanos"])
    with pytest.raises(UserError, match="suite mine: expected a mapping"):
        load_suite("mine")
    with pytest.raises(UserError, match="unknown suite 'yours'; known: mine"):
        load_suite("yours")


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (
            {"method": "wanda", "method.damping": [0.1, 1]},
            "key 'method.damping' is not used by method wanda with pattern unstructured:0.5",
        ),
        (
            {"pattern": "structured:0.3", "method.block_size": 8},
            "key 'method.block_size' is not used by method thanos with pattern structured:0.3",
        ),
        (
            {"variant": "damped", "method": ["wanda", "magnitude"]},
            "key 'method.damping' is not used by method",
        ),
        (
            {"calibration.path": "README.md"},
            "key 'calibration.path' is not used by calibration source docstrings",
        ),
        (
            {"evaluation": "perplexity", "evaluation.limit": 8},
            "key 'evaluation.limit' is not used by evaluation perplexity, which has no task",
        ),
        ({"method": "dense", "seed": [0, 1]}, "key 'seed' is not used by method dense"),
    ],
)
def test_a_block_with_a_key_that_none_of_its_runs_uses_is_refused(write_suite, block, message):
    others = {"method": ["dense", "thanos"], "method.damping": 0.1, "seed": 1}
    write_suite({"runs": [others, block], "variants": {"damped": {"method.damping": 0.1}}})
    with pytest.raises(UserError, match=f"^suite mine, block 2: {message}.*; leave it out$"):
        load_suite("mine")


def dampings(*overrides):
    columns = [run.columns for run in load_suite("mine", overrides).runs]
    return [(point["method"], point["damping"], point["seed"]) for point in columns]


def test_an_axis_applies_to_the_methods_that_use_it(write_suite):
    axes = {"method": ["dense", "wanda", "thanos"], "method.damping": [0.1, 1], "seed": [0, 1]}
    write_suite({"runs": [axes], "axis": "method.damping"})
    assert dampings() == [
        ("dense", None, 0),  # once, like those of wanda
        ("wanda", None, 0),
        ("wanda", None, 1),
        ("thanos", 0.1, 0),
        ("thanos", 0.1, 1),
        ("thanos", 1.0, 0),
        ("thanos", 1.0, 1),
    ]
    (dense, *_, last) = load_suite("mine").runs
    assert "seed=0" not in dense.overrides
    assert {"method=thanos", "method.damping=1", "seed=1"} <= set(last.overrides)


def test_an_override_applies_to_the_runs_that_use_it(write_suite):
    pruned = {"method": "thanos", "method.damping": 0.01}
    write_suite({"runs": [{"method": "wanda"}, pruned], "axis": "method.damping"})
    assert dampings("method.damping=0.1,1") == [
        ("wanda", None, 0),
        ("thanos", 0.1, 0),
        ("thanos", 1.0, 0),
    ]
    message = "^suite mine: key 'evaluation.path' is not used by evaluation testbed; leave it out$"
    with pytest.raises(UserError, match=message):
        load_suite("mine", ["evaluation.path=README.md"])
    write_suite({"runs": [{"method": "wanda"}], "common": {"method.damping": 0.1}})
    with pytest.raises(
        UserError, match=r"^suite mine: key 'method\.damping' is not used by method"
    ):
        load_suite("mine")


def test_a_file_belongs_to_the_sources_that_read_it(write_suite, tmp_path):
    (tmp_path / "a.txt").write_text("text")
    write_suite({"runs": [{"calibration": ["docstrings", "text"]}]})
    runs = load_suite("mine", [f"calibration.path={tmp_path / 'a.txt'}"]).runs
    paths = [run.pruning.calibration.text.path for run in runs]
    assert paths == [None, str(tmp_path / "a.txt")]


def test_the_real_suite_measures_more_where_more_can_be_had(tmp_path):
    def measured(*overrides):
        (dense, *_) = load_suite("real", ["method=dense", *overrides]).runs
        spec = dense.evaluation
        return [cut.readable for cut in spec.windows], list(spec.tasks)

    assert measured() == (["docstrings"], ["doc_continuation"])
    (tmp_path / "wikitext2").mkdir()
    (tmp_path / "wikitext2" / "wiki.test.raw").write_text("text")
    corpora = ["docstrings", "wikitext2"]
    assert measured(f"mirror={tmp_path}") == (corpora, ["doc_continuation"])
    (tmp_path / "zeroshot").mkdir()
    (tmp_path / "zeroshot" / "piqa.jsonl").write_text("{}")
    assert measured(f"mirror={tmp_path}") == (corpora, ["doc_continuation", "piqa"])
    (run,) = load_suite("real", ["method=dense", f"mirror={tmp_path}"]).runs
    assert run.absent == (
        "winogrande",
        "openbookqa",
        "boolq",
        "hellaswag",
        "arc_easy",
        "arc_challenge",
    )
    asked = wanted([run])
    assert (asked["evaluation"], asked["tasks"]) == (["wikitext2"], sorted([*run.absent, "piqa"]))
    alone = measured(f"mirror={tmp_path}", "evaluation.optional_corpora=[]")
    assert alone == (["docstrings"], ["doc_continuation", "piqa"])


def test_the_real_suite_has_twenty_runs_of_one_model():
    runs = load_suite("real").runs
    assert len({run.evaluation.id for run in runs}) == len(runs) == 20
    assert len({run.evaluation.base.id for run in runs}) == 1
    assert len({run.pruning.calibration.id for run in runs if run.pruning}) == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"runs": [{"method": []}]}, "block 1, axis method has no value"),
        ({"runs": [{"method": "dense"}], "common": {"seed": []}}, "common, axis seed has no value"),
        ({"runs": [{"variant": []}], "variants": {"a": {}}}, "block 1, axis variant has no value"),
        ({"runs": [{"method": {"a": "b"}}]}, "block 1, axis method is a mapping"),
        ({"runs": ["dense"]}, "block 1: expected a mapping"),
        ({"runs": [{"variant": "a"}], "variants": {"a": "b"}}, "variant a: expected a mapping"),
        ({"runs": [{"method": "dense"}], "common": ["a"]}, "common must be a mapping"),
        ({"runs": [{"method": "dense"}], "exclude": {"method": "dense"}}, "exclude must be a list"),
        ({"runs": [{"method": "dense"}], "exclude": ["dense"]}, "exclude 1: expected a mapping"),
        ({"runs": []}, "it has no run"),
        ({"runs": [{"method": "dense"}], "exclude": [{"method": "dense"}]}, "it has no run"),
    ],
)
def test_a_suite_without_runs_or_axes_that_are_none(write_suite, content, said):
    write_suite(content)
    with pytest.raises(UserError, match=f"^suite mine(, |: ){said}"):
        load_suite("mine")
