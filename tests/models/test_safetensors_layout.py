import pytest
import torch
from safetensors.torch import load_file, save_file

from thanos.errors import UserError
from thanos.models.safetensors_layout import copy_with, read_layout
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


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08\0\0\0\0\0\0\0",
        b"\x02\0\0\0\0\0\0\0[]",
        b"\x02\0\0\0\0\0\0\0{}more",
        b'\x0b\0\0\0\0\0\0\0{"w": null}',
    ],
)
def test_damaged_files_are_named(tmp_path, content):
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)

    with pytest.raises(UserError, match=r"weight file \S+model\.safetensors is damaged") as caught:
        read_layout(file)
    assert "\n" not in str(caught.value)
