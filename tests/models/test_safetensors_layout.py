import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from thanos.errors import UserError
from thanos.models.safetensors_layout import (
    copy_with,
    parse_header,
    read_header,
    read_layout,
)
from thanos.models.stored_weights import read_tensor

TENSORS = {
    "w": torch.arange(6.0).reshape(2, 3),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "empty": torch.empty(0, 4),
}


@pytest.fixture
def file(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors", metadata={"format": "pt"})
    return tmp_path / "model.safetensors"


def test_every_tensor_is_found_and_read(file):
    layout = read_layout(file)

    assert layout.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert layout[name].shape == tensor.shape
        assert layout[name].elements == tensor.numel()
        assert layout[name].bytes == tensor.numel() * tensor.element_size()
        assert read_tensor(layout[name]).dtype == tensor.dtype
        assert torch.equal(read_tensor(layout[name]), tensor)


def test_a_copy_with_nothing_replaced_is_the_same_file(file, tmp_path):
    copy_with(file, {}, tmp_path / "copy")

    assert (tmp_path / "copy").read_bytes() == file.read_bytes()


def test_replaced_tensors_come_from_elsewhere(file, tmp_path):
    save_file({"first": torch.ones(1), "w": torch.full((2, 3), 9.0)}, tmp_path / "other")

    copy_with(file, {"w": read_layout(tmp_path / "other")["w"]}, tmp_path / "copy")

    copy = load_file(tmp_path / "copy")
    assert torch.equal(copy.pop("w"), torch.full((2, 3), 9.0))
    assert all(torch.equal(copy[name], TENSORS[name]) for name in copy)
    assert len(copy) == 3


@pytest.mark.parametrize("other", [torch.ones(3, 2), torch.ones(2, 3).half()])
def test_a_tensor_of_another_kind_replaces_none(file, tmp_path, other):
    save_file({"w": other}, tmp_path / "other")

    with pytest.raises(ValueError, match=r"w: .* cannot replace"):
        copy_with(file, read_layout(tmp_path / "other"), tmp_path / "copy")


def test_the_header_is_known_to_the_byte(file):
    header = read_header(file)

    assert file.read_bytes().startswith(header.head)
    assert json.loads(header.text).keys() == {"__metadata__", *TENSORS}
    assert header.metadata == {"format": "pt"}
    assert parse_header(file, header.text) == header


def test_a_file_without_tensors_is_copied_too(tmp_path):
    save_file({}, tmp_path / "empty")

    copy_with(tmp_path / "empty", {}, tmp_path / "copy")

    assert (tmp_path / "copy").read_bytes() == (tmp_path / "empty").read_bytes()


def tensor(shape=(2,), offsets=(0, 8), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def encoded(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(data)


NO_SAFETENSORS = {
    "empty": b"",
    "shorter than a length": b"\x08",
    "no header": b"\x08\0\0\0\0\0\0\0",
    "header longer than the file": b"\xff" * 64,
    "header of one byte": b"\x01\0\0\0\0\0\0\0{}",
    "header that ends too early": encoded(b'{"w": ', 0),
    "header in no UTF-8": encoded(b'{"\xff": 1}', 0),
    "header nested too deeply": encoded(b"[" * 10**5, 0),
    "number too long": encoded(b"9" * 5000, 0),
    "no object": encoded([], 0),
    "bytes after the last tensor": encoded({"w": tensor()}, 9),
    "too few bytes": encoded({"w": tensor()}, 7),
    "null in place of a tensor": encoded({"w": None}, 0),
    "no offsets": encoded({"w": {"dtype": "F32", "shape": [2]}}, 8),
    "dtype is a number": encoded({"w": tensor(dtype=4)}, 8),
    "shape is a number": encoded({"w": {**tensor(), "shape": 2}}, 8),
    "negative sizes": encoded({"w": tensor([-1, -2])}, 8),
    "sizes that are no integers": encoded({"w": tensor([2.0])}, 8),
    "a truth value as size": encoded({"w": tensor([True, 2])}, 8),
    "one offset": encoded({"w": tensor(offsets=[8])}, 8),
    "offsets that are no integers": encoded({"w": tensor(offsets=["0", "8"])}, 8),
    "end before begin": encoded({"v": tensor(), "w": tensor([0], [8, 0])}, 8),
    "shape of other size than offsets": encoded({"w": tensor([3])}, 8),
    "nothing of some size": encoded({"w": tensor([0, 2])}, 8),
    "overlap": encoded({"v": tensor(), "w": tensor(offsets=[4, 12])}, 12),
    "the same place": encoded({"v": tensor(), "w": tensor()}, 8),
    "hole": encoded({"v": tensor(), "w": tensor(offsets=[12, 20])}, 20),
    "first tensor not at the beginning": encoded({"w": tensor(offsets=[4, 12])}, 12),
    "half a character in a name": encoded({"\ud800": tensor()}, 8),
    "half a character in the metadata": encoded({"__metadata__": {"a": "\ud800 udc00"}}, 0),
    "metadata is a list": encoded({"__metadata__": []}, 0),
    "metadata is null": encoded({"__metadata__": None}, 0),
    "metadata of numbers": encoded({"__metadata__": {"version": 1}}, 0),
}


@pytest.mark.parametrize("content", NO_SAFETENSORS.values(), ids=NO_SAFETENSORS)
def test_damaged_files_are_named(tmp_path, content):
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)

    expected = (
        r"^weight file \S+model\.safetensors is damaged or incomplete \(.+\); copy or download"
    )
    with pytest.raises(UserError, match=expected) as caught:
        read_layout(file)
    assert "\n" not in str(caught.value)


def test_a_header_longer_than_the_format_allows_is_not_read(tmp_path):
    file = tmp_path / "model.safetensors"
    with file.open("wb") as stream:
        stream.write((100_000_001).to_bytes(8, "little"))
        stream.truncate(200_000_000)  # no bytes on the disk

    with pytest.raises(UserError, match="header of 100000001 bytes"):
        read_layout(file)


def test_what_no_check_knows_is_left_alone(tmp_path):
    shared_bytes, nothing = tensor([3], [0, 2], "F4"), tensor([0], [2, 2])
    (tmp_path / "file").write_bytes(encoded({"b": nothing, "w": shared_bytes, "a": nothing}, 2))

    layout = read_layout(tmp_path / "file")

    assert list(layout) == ["w", "b", "a"]
    assert layout["w"].bytes == 2
