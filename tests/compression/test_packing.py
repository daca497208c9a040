import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from thanos.compression.packing import file_sizes, pack_file, packed_bytes, unpack_file
from thanos.errors import UserError
from thanos.pruning import prune_weight


def test_the_packed_form_of_a_small_tensor_on_paper(tmp_path):
    weight = torch.tensor([[1.0, 0, 0, 2, 0, 0], [0, 0, 3, 0, 0, 0]], dtype=torch.float16)
    save_file({"w": weight}, tmp_path / "dense.safetensors")

    counted = file_sizes(tmp_path / "dense.safetensors")
    sizes = pack_file(tmp_path / "dense.safetensors", tmp_path / "packed.safetensors")

    packed = load_file(tmp_path / "packed.safetensors")
    assert packed["w:values"].tolist() == [1, 2, 3]
    assert packed["w:values"].dtype == torch.float16
    assert packed["w:bitmask"].tolist() == [0b10010000, 0b10000000]  # 100100 001000 and padding
    assert (sizes.dense, sizes.packed, sizes.weights, sizes.nonzero) == (24, 8, 12, 3)
    assert counted == sizes  # known without writing


def test_bits_survive(tmp_path):
    tensors = {
        "negative zero and others": torch.tensor([0.0, -0.0, float("nan"), float("inf"), 0, 0] * 9),
        "bfloat16": torch.tensor([0.0, 1, 0, 0, 0, 1e-40, 0, 0, 0, 0], dtype=torch.bfloat16),
        "double": torch.zeros(3, 5, 7, dtype=torch.float64),
        "integers": torch.tensor([0, 0, 0, 0, 5]),
        "bytes": torch.tensor([0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0], dtype=torch.uint8),
        "flags": torch.tensor([True, False]),
        "scalar": torch.tensor(0.0),
        "nothing": torch.zeros(0, 4),
        "dense": torch.ones(3, 3, dtype=torch.float16),
        "eight bits": torch.zeros(30).to(torch.float8_e4m3fn),
    }
    save_file(tensors, tmp_path / "dense.safetensors", metadata={"format": "pt", "ü": "é"})

    pack_file(tmp_path / "dense.safetensors", tmp_path / "packed.safetensors")
    unpack_file(tmp_path / "packed.safetensors", tmp_path / "restored.safetensors")

    dense, restored = (tmp_path / f"{name}.safetensors" for name in ("dense", "restored"))
    assert restored.read_bytes() == dense.read_bytes()
    with safe_open(tmp_path / "packed.safetensors", "pt") as packed:
        assert {"dense", "flags", "nothing"} < set(packed.keys())  # not smaller packed


@pytest.mark.parametrize(
    ("pattern", "share"),
    [("0.5", 0.5 + 1 / 16), ("2:4", 0.5 + 1 / 16), ("structured:0.3", 0.7 + 1 / 16)],
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_size_of_pruned_half_precision(tmp_path, pattern, share, dtype):
    weight = torch.randn(100, 160, generator=torch.Generator().manual_seed(0)).to(dtype)
    pruned = prune_weight(weight, None, "magnitude", pattern).weight
    save_file({"pruned": pruned, "norm": torch.ones(160)}, tmp_path / "dense.safetensors")

    sizes = pack_file(tmp_path / "dense.safetensors", tmp_path / "packed.safetensors")

    assert sizes.sparse_dense == 2 * 100 * 160
    assert sizes.sparse_packed / sizes.sparse_dense == pytest.approx(share, abs=1e-3)
    if pattern != "structured:0.3":
        assert sizes.sparse_packed <= 0.57 * sizes.sparse_dense
    assert sizes.packed == sizes.sparse_packed + 4 * 160
    header = (tmp_path / "packed.safetensors").stat().st_size - sizes.packed
    assert 0 < header < 1000


def test_the_smaller_form_counts():
    assert packed_bytes(elements=160, nonzero=80, item_bytes=2) == 160 + 20
    assert packed_bytes(elements=160, nonzero=160, item_bytes=2) == 320


def test_what_is_no_safetensors_file_is_refused(tmp_path):
    source, target = tmp_path / "broken.safetensors", tmp_path / "packed.safetensors"
    source.write_bytes(b"\x02\0\0\0\0\0\0\0{}extra")
    for work in (pack_file, unpack_file):
        with pytest.raises(UserError, match=r"weight file \S+broken\.safetensors is damaged"):
            work(source, target)
    assert not target.exists()


def line(shape, offsets, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    "promised",
    [
        "no header",
        json.dumps({"w": line([64], [0, 8])}),
        json.dumps({"w": line([32], [0, 128]), "v": line([64], [128, 384])}),  # v is not there
        json.dumps({"w": line([10**12], [0, 4 * 10**12])}),  # more than any memory
        json.dumps({"w": line([63], [0, 252])}),
        json.dumps({"w": line([64], [0, 192], "F24")}),  # no size that words have
        json.dumps({"w:bitmask": line([9], [0, 9], "U8")}),
        "\ud800",
    ],
)
def test_a_packed_file_that_promises_what_it_does_not_hold_is_refused(tmp_path, promised):
    packed = tmp_path / "packed.safetensors"
    save_file({"w": torch.tensor([1.0, *[0.0] * 62, 1])}, tmp_path / "dense.safetensors")
    pack_file(tmp_path / "dense.safetensors", packed)
    with safe_open(packed, "pt") as held:
        facts = {**held.metadata(), "header": promised}
    length = int.from_bytes(packed.read_bytes()[:8], "little")
    header = json.loads(packed.read_bytes()[8 : 8 + length])
    edited = json.dumps({**header, "__metadata__": facts}).encode()
    data = packed.read_bytes()[8 + length :]
    packed.write_bytes(len(edited).to_bytes(8, "little") + edited + data)

    with pytest.raises(UserError, match=r"packed\.safetensors is damaged or incomplete \("):
        unpack_file(packed, tmp_path / "restored.safetensors")
    restored = tmp_path / "restored.safetensors"
    assert not restored.exists() or restored.stat().st_size < 1000


def test_packed_and_dense_files_are_not_mistaken_for_each_other(tmp_path):
    dense, packed = tmp_path / "dense.safetensors", tmp_path / "packed.safetensors"
    save_file({"w": torch.zeros(64)}, dense)
    pack_file(dense, packed)

    with pytest.raises(UserError, match="is packed already"):
        pack_file(packed, tmp_path / "twice.safetensors")
    with pytest.raises(UserError, match="is not a packed file"):
        unpack_file(dense, tmp_path / "restored.safetensors")
