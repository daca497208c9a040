"""W&B offline: what is in the folder afterwards, read from W&B's own record file."""

import json
import logging
import os
import struct
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from results_folder import ResultsFolder, layer

from thanos.artifacts import read_json, write_checked_text, write_manifest
from thanos.errors import UserError
from thanos.reporting.run_files import RunFiles
from thanos.stages import track
from thanos.tracking import log_run, log_suite, run_id

BLOCK_BYTES = 32768  # of the record file, which has LevelDB's log format


@pytest.fixture(autouse=True)
def lonely_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without a W&B login, to see what is written outside of the chosen directory."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    return home


@pytest.fixture
def results(tmp_path: Path) -> ResultsFolder:
    return ResultsFolder(tmp_path / "results")


@pytest.fixture
def run(results: ResultsFolder) -> RunFiles:
    """A finished run."""
    only = layer(0, "mlp.up_proj", 0.02, shape=(8, 4))
    return next(results.read([results.run(perplexity=33.9, layers=[only])]))


def test_an_offline_run_has_config_metrics_and_layers(
    run: RunFiles, tmp_path: Path, lonely_home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    environment = dict(os.environ)
    target = tmp_path / "tracking"
    log_run(run, group="demo", directory=target)

    (logged,) = [record.run for record in read_back(target) if record.HasField("run")]
    assert (logged.run_id, logged.project, logged.run_group) == (run.name[-8:], "thanos", "demo")
    assert logged.display_name == run.name
    assert run.name.startswith("doc-llama/2-4/thanos-")
    assert sorted(logged.tags) == ["2:4", "doc-llama", "thanos"]
    config = {item.key: json.loads(item.value_json) for item in logged.config.update}
    assert (config["method"], config["block_size"], config["pattern"]) == ("thanos", 512, "2:4")
    assert config["spec"]["model"]["calibration"]["windows"] == 64
    assert set(config["provenance"]) == {"pruning", "docs"}
    assert config["provenance"]["pruning"]["source"]["revision"] == "5eed"

    (history,) = [record.history for record in read_back(target) if record.HasField("history")]
    metrics = metrics_of(history)
    assert metrics["perplexity/docs"] == 33.9
    assert metrics["sparsity"] == 0.5
    table = next(target.glob("wandb/*/files/media/table/*.json"))
    content = json.loads(table.read_text())
    assert content["data"] == [[0, "model.layers.0.mlp.up_proj", 8, 4, 0.5, 0.02, 0.1]]

    assert capfd.readouterr() == ("", "")
    assert not list(lonely_home.rglob("*"))
    assert dict(os.environ) == environment


def test_a_run_that_is_logged_again_replaces_itself(run: RunFiles, tmp_path: Path) -> None:
    log_run(run, directory=tmp_path)
    again = {**run.evaluation["corpora"]["docs"], "perplexity": 31}
    log_run(
        replace(run, evaluation={**run.evaluation, "corpora": {"docs": again}}), directory=tmp_path
    )
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 1
    (history,) = [record.history for record in read_back(tmp_path) if record.HasField("history")]
    assert metrics_of(history)["perplexity/docs"] == 31


def test_a_suite_is_one_artifact_with_its_tables_and_figures(tmp_path: Path) -> None:
    suite = tmp_path / "demo"
    for name in ("results.csv", "report.html", "tables/main.md", "tables/main.csv"):
        (suite / name).parent.mkdir(parents=True, exist_ok=True)
        (suite / name).write_text("Method,value\nThanos,1.5\n")
    (suite / "figures").mkdir()
    Image.new("RGB", (4, 4)).save(suite / "figures" / "main.png")
    log_suite(suite, directory=tmp_path)
    log_suite(suite, directory=tmp_path)  # a second time it replaces itself
    artifacts = [
        record.request.log_artifact.artifact if record.HasField("request") else record.artifact
        for record in read_back(tmp_path)
        if record.HasField("artifact") or record.request.HasField("log_artifact")
    ]
    (artifact,) = [artifact for artifact in artifacts if artifact.name == "suite-demo"]
    paths = {entry.path for entry in artifact.manifest.contents}
    assert paths == {
        *("results.csv", "report.html", "tables/main.md", "tables/main.csv", "figures/main.png")
    }
    table = next(tmp_path.glob("wandb/offline-run-*/files/media/table/tables/*.json"))
    assert json.loads(table.read_text())["data"] == [["Thanos", "1.5"]]
    assert list(tmp_path.glob("wandb/offline-run-*/files/media/images/figures/main*.png"))


def test_disabled_writes_nothing(run: RunFiles, tmp_path: Path) -> None:
    log_run(run, mode="disabled", directory=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_failure_of_wandb_is_a_warning(
    run: RunFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    with caplog.at_level(logging.WARNING):
        log_run(run, directory=tmp_path)
    assert f"{run.name[-8:]} was not logged to W&B (offline)" in caplog.text


def test_online_without_login_is_a_warning(run: RunFiles, tmp_path: Path, caplog: Any) -> None:
    with caplog.at_level(logging.WARNING):
        log_run(run, mode="online", directory=tmp_path)
    assert "was not logged to W&B (online)" in caplog.text


def test_what_is_the_users_fault_is_an_error(run: RunFiles, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="tracking mode 'maybe'"):
        log_run(run, mode="maybe", directory=tmp_path)
    with pytest.raises(UserError, match=r"results\.csv: missing"):
        log_suite(tmp_path, directory=tmp_path)


def test_a_finished_suite_is_logged_whole(
    results: ResultsFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [results.run(), results.run("a", method="wanda", perplexity=40.0)]
    suite = results.write_list(runs).parent
    write_checked_text(suite / "results.csv", "run\n")
    for made in ("tables", "figures"):
        (suite / made).mkdir()
        write_manifest(suite / made, {})
    target = tmp_path / "tracking"
    given = ["--suite", str(suite), "--output", str(suite / "tracking.json")]
    monkeypatch.setattr(sys, "argv", ["track", *given, "--directory", str(target)])
    track.main()
    ids = {run.name: run_id(run.name) for run in runs}
    assert read_json(suite / "tracking.json", sealed=True)["runs"] == ids
    found = {path.stem for path in target.glob("wandb/offline-run-*/run-*.wandb")}
    assert found == {*(f"run-{identity}" for identity in ids.values()), "run-suite-mine"}


def test_a_run_is_known_by_the_hash_of_its_name() -> None:
    assert run_id("doc-llama/2-4/my-own-thanos-0123abcd") == "0123abcd"


def metrics_of(history: Any) -> dict[str, Any]:
    return {
        "/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in history.item
    }


def read_back(directory: Path) -> list[Any]:
    """All records of the only offline run below `directory`."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = (directory / "wandb").glob("offline-run-*/run-*.wandb")
    return [Record.FromString(content) for content in _payloads(path.read_bytes())]


def _payloads(data: bytes) -> Iterator[bytes]:
    """Records of a LevelDB log: crc (4 bytes), length (2), kind (1), payload; kind 1 is whole."""
    position, parts = 7, b""  # after the file's own header
    while position + 7 <= len(data):
        if BLOCK_BYTES - position % BLOCK_BYTES < 7:
            position += BLOCK_BYTES - position % BLOCK_BYTES
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, last
            yield parts
            parts = b""
