"""The virtual device notices what a real one would refuse, and counts what it would wait for."""

import copy
import threading

import pytest
import torch
from torch import nn

HOST = torch.ones(4, 3)


@pytest.fixture
def x(accelerator):
    return torch.arange(12.0, device=accelerator).view(4, 3)


@pytest.fixture
def waits(virtual):
    return virtual.waits


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x + HOST,
        lambda x: HOST + x,
        lambda x: x @ HOST.T,
        lambda x: torch.mul(x, x, out=torch.empty(4, 3)),
        lambda x: torch.ones(4, 3).add_(x),
        lambda x: torch.tensor(0.0).add_(x.sum()),
        lambda x: HOST[x > 0],
        lambda x: torch.cat([x, HOST]),
        lambda x: torch.stack([x.sum(), torch.tensor(1.0)]),
        lambda x: nn.Linear(3, 2)(x),
        lambda x: torch.where(x > 0, x, HOST),
    ],
)
def test_operands_on_two_devices_are_refused(virtual, x, mix):
    with pytest.raises(RuntimeError, match="one device, found vdev:0 and cpu"):
        mix(x)


def test_numbers_and_indices_may_come_from_the_host(x):
    assert (x * torch.tensor(2.0)).device == x.device
    assert x[torch.tensor([2, 0])].tolist() == [[6, 7, 8], [0, 1, 2]]


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(2, device="vdev:1"),
        lambda: torch.tensor([1, 2], device="vdev:1"),
        lambda: HOST.to("vdev:7"),
        lambda: nn.Linear(2, 2, device="vdev:1"),
        lambda: torch.arange(3, device="vdev:0").to("vdev:1"),
        lambda: torch.zeros_like(torch.arange(3, device="vdev"), device="vdev:1"),
    ],
)
def test_a_device_that_is_not_there_is_refused(virtual, make):
    with pytest.raises(RuntimeError, match="the only device is vdev:0"):
        make()


@pytest.mark.parametrize(
    ("operation", "read"),
    [
        ("_local_scalar_dense", lambda x: float(x.sum())),
        ("_local_scalar_dense", lambda x: bool((x > 1).any())),
        ("_to_copy", lambda x: x.cpu()),
        ("_to_copy", lambda x: x.tolist()),
        ("copy_", lambda x: torch.empty(4, 3).copy_(x)),
        ("nonzero", lambda x: (x > 1).nonzero()),
        ("index", lambda x: x[x > 1]),
        ("index_put_", lambda x: x.index_put_((x > 9,), x[0, :2].clone())),
        ("equal", lambda x: torch.equal(x, x)),
        ("_unique2", lambda x: x.unique()),
        ("_linalg_check_errors", lambda x: torch.linalg.cholesky(x.T @ x + x.new_ones(3).diag())),
        ("synchronize", lambda x: torch.accelerator.synchronize(x.device)),
    ],
)
def test_what_the_host_waits_for_is_counted(waits, x, operation, read):
    read(x)
    assert sum(waits.values()) == 1
    assert next(iter(waits)).split()[0].removeprefix("aten::") == operation


def test_what_it_need_not_wait_for_is_not(waits, x):
    y = x.clone()
    y[y > 3] = 0
    y[:, 1].mul_(2).add_(y.sum())
    y.masked_fill_(y < 0, 1).sort().values.kthvalue(1)
    torch.linalg.cholesky_ex(x.T @ x)
    x.add_(HOST.to(x.device))
    assert not waits


def test_what_is_computed_is_counted_and_views_are_not(virtual, x):
    virtual.operations.clear()
    y = x.T[1:, ::2].unsqueeze(0).view(2, 1, 2).unbind()[0].expand(3, 2)
    assert not virtual.operations
    y = torch.mm(x.T, x, out=x.new_empty(3, 3)).add_(1)
    y.max(dim=0)
    found = {name.removeprefix("aten::"): n for name, n in virtual.operations.items()}
    assert found == {"mm": 1, "add_": 1, "max": 1}


def test_a_wait_is_blamed_on_the_programs_line(waits, x):
    from thanos.pruning.selection import smallest_per_row

    smallest_per_row(x, 1)
    assert [key.rpartition(":")[0] for key in waits] == [
        "aten::_local_scalar_dense pruning/selection.py"
    ]


def test_views_are_views_and_copies_are_copies(virtual, x):
    view = x[1:, 1:]
    copied, module = copy.deepcopy(x), nn.Linear(3, 2).to(x.device)
    twin = copy.deepcopy(module)
    view.zero_()
    module.weight.detach().zero_()
    assert x.tolist() == [[0, 1, 2], [3, 0, 0], [6, 0, 0], [9, 0, 0]]
    assert x._version == view._version == 1
    assert copied.sum() == 66
    assert isinstance(twin.weight, nn.Parameter)
    assert isinstance(twin.weight, virtual.OnDevice)
    assert twin.weight.count_nonzero() == 6


def test_a_thread_needs_to_know_nothing(accelerator):
    found = []
    thread = threading.Thread(target=lambda: found.append(HOST.to(accelerator) * 2))
    thread.start()
    thread.join()
    assert found[0].device == accelerator


def test_memory_is_accounted_for_and_has_an_end(virtual, accelerator):
    before = torch.accelerator.memory_allocated(accelerator)
    torch.accelerator.reset_peak_memory_stats(accelerator)
    x = torch.zeros(1000, device=accelerator)
    view = x[10:].view(-1, 9)
    assert torch.accelerator.memory_allocated(accelerator) == before + 4000
    y = x * 2
    del x, y
    assert torch.accelerator.memory_allocated(accelerator) == before + 4000  # the view's
    del view
    assert torch.accelerator.memory_allocated(accelerator) == before
    assert torch.accelerator.max_memory_allocated(accelerator) == before + 8000
    virtual.memory.total = before + 10**6
    assert torch.accelerator.get_memory_info(accelerator) == (10**6, before + 10**6)
    with pytest.raises(torch.OutOfMemoryError):
        torch.zeros(10**6 // 4 + 1, device=accelerator)


def test_it_is_there_only_where_it_is_attached(virtual):
    assert torch.accelerator.is_available()
    virtual.module.available = False
    assert torch.accelerator.current_accelerator(check_available=True) is None
