import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from thanos.artifacts import read_json, verify_manifest, write_json, write_manifest
from thanos.errors import UserError
from thanos.stages.pack import main


def hashes(folder: Path) -> dict[str, str]:
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.fixture
def checkpoint(families, prune, tmp_path) -> Path:
    """A pruned half-precision checkpoint in two shards, as the pruning stage leaves it."""
    folder = tmp_path / "checkpoint"
    model = prune(families["llama"](), "0.5").half()
    model.save_pretrained(folder)
    model.save_pretrained(folder / "sharded", max_shard_size="20KB")
    (folder / "notes.txt").write_text("kept as it is")
    write_manifest(folder, {"provenance": {"seed": 0}})
    return folder


def test_the_restored_folder_is_identical(checkpoint, tmp_path, capsys):
    main(["pack", str(checkpoint), str(tmp_path / "packed")])
    assert "bytes, packed" in capsys.readouterr().out
    main(["unpack", str(tmp_path / "packed"), str(tmp_path / "restored")])

    assert hashes(tmp_path / "restored") == hashes(checkpoint)
    verify_manifest(tmp_path / "restored", maker="rule prune")
    assert len(list((checkpoint / "sharded").glob("*.safetensors"))) > 1


def test_the_packed_file_is_smaller_and_opens_as_safetensors(checkpoint, tmp_path):
    main(["pack", str(checkpoint), str(tmp_path / "packed")])

    name = "model.layers.0.mlp.down_proj.weight"
    dense = load_file(checkpoint / "model.safetensors")[name]
    packed = load_file(tmp_path / "packed" / "model.safetensors")
    values, mask = packed[f"{name}:values"], packed[f"{name}:bitmask"]
    assert torch.equal(values, dense[dense != 0])
    assert values.nbytes + mask.nbytes <= 0.57 * dense.nbytes
    verify_manifest(tmp_path / "packed", maker="python -m thanos pack")


def test_the_target_must_not_exist(checkpoint, tmp_path):
    (tmp_path / "packed").mkdir()
    with pytest.raises(UserError, match="packed exists already"):
        main(["pack", str(checkpoint), str(tmp_path / "packed")])
    with pytest.raises(UserError, match="checkpoint exists already"):
        main(["unpack", str(tmp_path / "packed"), str(checkpoint)])


def test_the_target_must_not_lie_inside_the_source(checkpoint):
    with pytest.raises(UserError, match="lies inside"):
        main(["pack", str(checkpoint), str(checkpoint / "packed")])


def test_sources_that_cannot_be_packed(checkpoint, tmp_path):
    target = str(tmp_path / "packed")
    with pytest.raises(UserError, match="nowhere does not exist"):
        main(["pack", str(tmp_path / "nowhere"), target])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty holds no \.safetensors file"):
        main(["pack", str(tmp_path / "empty"), target])
    with pytest.raises(UserError, match="checkpoint is not a packed folder"):
        main(["unpack", str(checkpoint), target])
    with pytest.raises(UserError, match="empty is not a packed folder"):
        main(["unpack", str(tmp_path / "empty"), target])
    (checkpoint / "notes.txt").write_text("edited")
    with pytest.raises(UserError, match=r"notes\.txt is damaged"):
        main(["pack", str(checkpoint), target])
    assert not Path(target).exists()


def test_a_packed_folder_is_not_packed_again(checkpoint, tmp_path):
    main(["pack", str(checkpoint), str(tmp_path / "packed")])
    with pytest.raises(UserError, match="packed is packed already"):
        main(["pack", str(tmp_path / "packed"), str(tmp_path / "twice")])


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_a_damaged_packed_file_is_noticed(checkpoint, tmp_path, damage):
    main(["pack", str(checkpoint), str(tmp_path / "packed")])
    file = tmp_path / "packed" / "model.safetensors"
    content = bytearray(file.read_bytes())
    if damage == "truncate":
        file.write_bytes(content[:-1])
    elif damage == "flip":
        content[-5] ^= 1
        file.write_bytes(content)
    else:
        file.unlink()

    with pytest.raises(UserError, match=r"model\.safetensors is (damaged|missing)"):
        main(["unpack", str(tmp_path / "packed"), str(tmp_path / "restored")])
    assert not (tmp_path / "restored").exists()


@pytest.mark.parametrize("name", ["../outside.txt", "absent.txt"])
def test_a_name_that_the_folder_does_not_hold_is_refused(checkpoint, tmp_path, name):
    main(["pack", str(checkpoint), str(tmp_path / "packed")])
    (tmp_path / "outside.txt").write_text("not of the folder")
    manifest = read_json(tmp_path / "packed" / "manifest.json")
    manifest["checkpoint"][name] = "0" * 64
    write_json(tmp_path / "packed" / "manifest.json", manifest)

    with pytest.raises(UserError, match=f"packed lacks '{name}'"):
        main(["unpack", str(tmp_path / "packed"), str(tmp_path / "restored")])
    assert not (tmp_path / "restored").exists()


def test_from_the_command_line(checkpoint, tmp_path):
    def thanos(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "thanos", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert thanos("pack", checkpoint, tmp_path / "packed").returncode == 0
    assert thanos("unpack", tmp_path / "packed", tmp_path / "restored").returncode == 0
    assert hashes(tmp_path / "restored") == hashes(checkpoint)

    refused = thanos("unpack", tmp_path / "packed", tmp_path / "restored")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: ")
    assert refused.stderr.count("\n") == 1
