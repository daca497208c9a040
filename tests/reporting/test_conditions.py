"""Results that were made under different conditions never share a table."""

import sys
from pathlib import Path
from typing import Any

import pytest
from results_folder import MADE, ResultsFolder

from thanos.artifacts import read_json
from thanos.config import Run
from thanos.errors import UserError
from thanos.reporting.conditions import Conditions
from thanos.reporting.run_files import RunFiles
from thanos.stages import collect

GPU = {"device": "cuda", "name": "NVIDIA H100", "dtype": "float32", "threads": 2}


def conditions_of(results: ResultsFolder, *runs: Run) -> Conditions:
    conditions = Conditions()
    for run in results.read(runs):
        assert conditions.add(run) is run
    return conditions


def by(kind: str, **values: str) -> dict[str, Any]:
    """What a stage records whose fingerprint is otherwise."""
    changed = {**MADE["fingerprint"][kind], **values}
    return {"fingerprint": {**MADE["fingerprint"], kind: changed}}


def using(**values: str) -> dict[str, Any]:
    return {"used": {**MADE["used"], **values}}


def test_what_was_made_alike_shares_a_table(demo_runs: list[Run], results: ResultsFolder) -> None:
    conditions_of(results, *demo_runs).check()


@pytest.mark.parametrize(
    ("made", "condition", "values"),
    [
        (by("code", **{"thanos.stages": "beef"}), "code thanos.stages", ("c0de", "beef")),
        (by("libraries", torch="2.14.0"), "libraries torch", ("2.13.0", "2.14.0")),
        (using(device="cuda"), "device", ("cpu", "cuda")),
        (using(dtype="float16"), "dtype of doc-llama", ("float32", "float16")),
    ],
)
def test_a_mixture_is_refused_in_one_line(
    results: ResultsFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    made: dict[str, Any],
    condition: str,
    values: tuple[str, str],
) -> None:
    one, other = results.run(method="wanda"), results.run(method="thanos", made=made)
    tables = [str(tmp_path / name) for name in ("results.csv", "layers.csv", "windows.csv")]
    given = [str(results.write_list([one, other])), "--output", tables[0], "--layers", tables[1]]
    given += ["--windows", tables[2], "--origin", str(tmp_path / "origin.json")]
    monkeypatch.setattr(sys, "argv", ["collect", *given])
    with pytest.raises(UserError) as error:
        collect.main()
    assert str(error.value) == (
        f"results that differ in {condition} make no table ({values[0]}: {one.name}; "
        f"{values[1]}: {other.name}); run what is older again, see `snakemake verify`"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["results"]  # no table is begun


def test_models_may_differ_in_dtype(results: ResultsFolder) -> None:
    runs = [results.run("a"), results.run("b", made=using(dtype="bfloat16"))]
    conditions_of(results, *runs).check()


def test_threads_inputs_and_the_machine_may_differ(results: ResultsFolder) -> None:
    made = {**by("inputs", windows="abc"), **using(threads="16"), "hardware": {"machine": "arm"}}
    conditions_of(results, results.run("a"), results.run("b", made=made)).check()


def test_a_module_of_some_runs_is_compared_among_those(results: ResultsFolder) -> None:
    module = "thanos.pruning.updates"
    without = results.run(method="wanda")
    one = results.run(method="thanos", made=by("code", **{module: "0ne"}))
    conditions_of(results, without, one).check()
    other = results.run(method="thanos", seed=1, made=by("code", **{module: "0ther"}))
    with pytest.raises(UserError, match=f"code {module}") as error:
        conditions_of(results, without, one, other).check()
    assert without.name not in str(error.value)


def test_few_of_many_runs_are_named(results: ResultsFolder) -> None:
    runs = [results.run(seed=seed) for seed in range(5)]
    other = results.run(method="wanda", made=using(device="cuda"))
    named = ", ".join(run.name for run in runs[:3])
    with pytest.raises(UserError, match=f"cpu: {named} and 2 more; cuda: {other.name}\\)"):
        conditions_of(results, *runs, other).check()


def test_a_result_without_a_record_of_its_making_is_refused() -> None:
    run = RunFiles("a/2-4/mine-0", {"model": "a"}, evaluation={"corpora": {"docs": {}}})
    with pytest.raises(UserError, match=r"^a/2-4/mine-0: docs has no provenance"):
        Conditions().add(run)


def test_the_origin_names_what_was_computed_on_and_nothing_else(results: ResultsFolder) -> None:
    size = {"bytes": {"dense": 8}}
    only_cpu = conditions_of(results, results.run("a", size=size)).origin()
    assert only_cpu["Computed on"] == ["device cpu, dtype float32, threads 2"]
    assert only_cpu["Hardware"] == ["machine x86_64, cores 2"]
    assert (only_cpu["From"], only_cpu["To"]) == ([MADE["started"]], [MADE["ended"]])
    both = conditions_of(results, results.run("a", size=size), results.run("b", made={"used": GPU}))
    assert both.origin()["Computed on"] == [
        *only_cpu["Computed on"],
        "device cuda, name NVIDIA H100, dtype float32, threads 2",
    ]
    counted = Conditions()
    made = {key: value for key, value in MADE.items() if key != "used"}
    counted.add(RunFiles("a", {"model": "a"}, evaluation={"size": {"provenance": made}}))
    assert "Computed on" not in counted.origin()


def test_the_origin_is_kept_beside_the_tables(
    results: ResultsFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [results.run(), results.run(method="wanda")]
    given = [str(results.write_list(runs))]
    for option in ("output", "layers", "windows", "origin"):
        given += [f"--{option}", str(tmp_path / option)]
    monkeypatch.setattr(sys, "argv", ["collect", *given])
    collect.main()
    assert read_json(tmp_path / "origin", sealed=True)["origin"]["Revision"] == ["5eed"]
