"""An accelerator that is not there, for the tests of what runs on one.

`vdev:0` is a backend of torch written in Python. A tensor on it holds a tensor on the host; every
operation is carried out on what its operands hold; and what an accelerator refuses is refused:
operands of two devices, a device that does not exist, more memory than there is. What a program
asks for is counted, each of it some microseconds of the host's; and what it has to wait for: values
and tensors that are read back, results whose size the host must know, synchronisations.

It is a backend and no mode, so that threads, hooks and libraries need to know nothing of it. torch
keeps it until the process ends, but it is available only where `attached` says so.
"""

import sys
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.utils.backend_registration as registration

NAME = "vdev"
_PROGRAM = str(Path(__file__).parent.parent / "thanos")
_READER = f"{_PROGRAM}/accelerator.py"  # on behalf of others

# These may take tensors of two devices; indices may lie on the host; what joins tensors takes not
# even a number from there.
_COPIES = {"aten::copy_", "aten::_to_copy"}
_INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
_JOINING = {"aten::cat", "aten::stack"}
# The host must know a value, or how large the result is.
_WAITED_FOR = {
    *("aten::_local_scalar_dense", "aten::equal", "aten::nonzero", "aten::masked_select"),
    *("aten::_unique2", "aten::unique_dim", "aten::unique_consecutive", "aten::bincount"),
    *("aten::repeat_interleave", "aten::_linalg_check_errors"),
}
# What accelerators can do and the host cannot.
_INSTEAD = {
    "aten::histc": lambda x, *args, **kwargs: torch.histc(x.float(), *args, **kwargs).to(x.dtype)
}


class OnDevice(torch.Tensor):
    """A tensor on the host that claims to be on the device."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "OnDevice":
        if held.dtype == torch.float64 and not module.has_float64:
            raise TypeError(f"{DEVICE} has no float64")
        with torch.inference_mode(False):  # a view of a normal tensor is one in that mode too
            made = torch.Tensor._make_wrapper_subclass(
                *(cls, held.size()),
                strides=held.stride(),
                storage_offset=held.storage_offset(),
                dtype=held.dtype,
                device=DEVICE,
            )
        made.held = held
        memory.take(made)
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        # In inference mode operations come that are made of others, which say what really runs.
        made = function.decompose(*args, **(kwargs or {}))
        return _run(function, args, kwargs or {}) if made is NotImplemented else made

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def storage(self):
        return self.held.storage()

    def tolist(self):
        return self.cpu().tolist()

    def __deepcopy__(self, memo: dict) -> torch.Tensor:
        copied = OnDevice(self.held.clone())
        if isinstance(self, torch.nn.Parameter):
            copied = torch.nn.Parameter(copied, self.requires_grad)
        memo[id(self)] = copied
        return copied

    def __repr__(self) -> str:
        return f"{self.held!r} on {DEVICE}"


class _Memory:
    """Bytes that tensors on the device hold; those of one storage count once."""

    def __init__(self) -> None:
        self.total = 2**40
        self.allocated = self.peak = 0
        self._tensors: Counter[int] = Counter()  # by the address of their storage

    def take(self, tensor: OnDevice) -> None:
        storage = tensor.held.untyped_storage()
        address, size = storage.data_ptr(), storage.nbytes()
        if not self._tensors[address]:
            if self.allocated + size > self.total:
                del self._tensors[address]
                raise torch.OutOfMemoryError(f"{DEVICE} has no room for {size} bytes more")
            self.allocated += size
            self.peak = max(self.peak, self.allocated)
        self._tensors[address] += 1
        weakref.finalize(tensor, self._give_back, address, size).atexit = False

    def _give_back(self, address: int, size: int) -> None:
        self._tensors[address] -= 1
        if not self._tensors[address]:
            del self._tensors[address]
            self.allocated -= size


def _run(function, args, kwargs):
    """An operation, on what its operands hold."""
    name = function._schema.name
    given = [x for x in _leaves((args, *kwargs.values())) if isinstance(x, torch.Tensor)]
    ours = [x for x in given if isinstance(x, OnDevice)]
    if ours and name not in _COPIES:
        _refuse_mixed(name, args, given)
    host = {key: value for key, value in kwargs.items() if key != "pin_memory"}
    lands = bool(ours)
    if host.get("device") is not None:
        lands = _is_ours(torch.device(host["device"]))
        host["device"] = torch.device("cpu") if lands else host["device"]
    if ours and not _computes_nothing(function):
        operations[name] += 1
    if ours and _waits(name, args, kwargs):
        _count(name)
    host = {key: _mapped(_held, value) for key, value in host.items()}
    result = _INSTEAD.get(name, function)(*_mapped(_held, args), **host)
    if name == "aten::copy_":
        return args[0]
    known = {id(x.held): x for x in ours}

    def wrapped(x):
        if not isinstance(x, torch.Tensor) or not lands:
            return x
        if id(x) not in known:
            return OnDevice(x)
        own = known[id(x)]  # written in place, or as `out`
        if own.shape != x.shape:
            raise NotImplementedError(f"{name} changes the shape of a tensor on {DEVICE}")
        return own

    return _mapped(wrapped, result)


def _held(value):
    return value.held if isinstance(value, OnDevice) else value


def _leaves(values) -> Iterator:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _leaves(value)
        else:
            yield value


def _mapped(change, value):
    """The value with each of its parts changed; torch's own tree_map costs more than the work."""
    if isinstance(value, list | tuple):
        return type(value)([_mapped(change, part) for part in value])
    return change(value)


def _is_ours(device: torch.device) -> bool:
    if device.type == NAME and device.index not in (None, 0):
        raise RuntimeError(f"there is no {device}: the only device is {DEVICE}")
    return device.type == NAME


def _refuse_mixed(name: str, args, given: list[torch.Tensor]) -> None:
    first = next(_leaves(args), None)
    for x in given:
        if isinstance(x, OnDevice) or x.device.type == "meta":
            continue
        is_number = x.dim() == 0 and name not in _JOINING
        is_index = name in _INDEXED and x is not first and x.dtype in (torch.int64, torch.bool)
        is_written = x is first and name.endswith("_")
        if is_written or not (is_number or is_index):
            raise RuntimeError(
                f"{name}: expected all tensors on one device, found {DEVICE} and {x.device} "
                f"(of shape {tuple(x.shape)})"
            )


def _waits(name: str, args, kwargs) -> bool:
    """Whether the host has to wait for the device before the program can go on."""
    if name == "aten::copy_":
        target, source = args[:2]
        return isinstance(source, OnDevice) and not isinstance(target, OnDevice)
    if name == "aten::_to_copy":
        return torch.device(kwargs.get("device") or DEVICE).type == "cpu"
    if name in _INDEXED:
        masks = [x for x in args[1] if x is not None and x.dtype in (torch.bool, torch.uint8)]
        fills = name != "aten::index" and args[2].numel() == 1  # torch makes masked_fill of it
        return bool(masks) and not fills
    return name in _WAITED_FOR


def _computes_nothing(function) -> bool:
    """Whether what comes back is another look at an operand, or memory with nothing in it."""
    looks = [result.alias_info for result in function._schema.returns]
    only_looks = all(alias is not None and not alias.is_write for alias in looks)
    return only_looks or "empty" in function._schema.name


operations: Counter[str] = Counter()  # what the device was asked to compute or copy, by name
waits: Counter[str] = Counter()  # by operation and the program's line that asks for it


def _count(name: str) -> None:
    frame = sys._getframe()
    while frame is not None and (
        not frame.f_code.co_filename.startswith(_PROGRAM) or frame.f_code.co_filename == _READER
    ):
        frame = frame.f_back
    where = "elsewhere"
    if frame is not None:
        file = frame.f_code.co_filename.removeprefix(f"{_PROGRAM}/")
        where = f"{file}:{frame.f_lineno}"
    waits[f"{name} {where}"] += 1


class _Module:
    """What torch asks of `torch.vdev`."""

    available = False
    has_float64 = True  # MPS has none

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return self.available

    def device_count(self) -> int:
        return int(self.available)

    def current_device(self) -> int:
        return 0

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        """Random numbers are the host's."""


def _synchronize(index: int) -> None:
    _count("synchronize")


def _statistics(index: int) -> dict:
    held = {"all": {"current": memory.allocated, "peak": memory.peak}}
    return {"allocated_bytes": held, "reserved_bytes": held}


def _reset_peak(index: int) -> None:
    memory.peak = memory.allocated


def _factory(overload: str):
    """Makes on the device what torch makes on the host."""
    name, _, variant = overload.partition(".")
    make = getattr(getattr(torch.ops.aten, name), variant or "default")

    def made(*args, device=None, **options):
        _is_ours(torch.device(device))
        options = {key: value for key, value in options.items() if key != "pin_memory"}
        return OnDevice(make(*args, **options, device="cpu"))

    return made


def _copied(source: torch.Tensor, target: OnDevice, non_blocking: bool = False) -> OnDevice:
    target.held.copy_(source)
    return target


module, memory = _Module(), _Memory()
registration._setup_privateuseone_for_python_backend(NAME, backend_module=module)
DEVICE = torch.device(NAME, 0)
# What has no operand that could say where to run; other factories end in these.
_library = torch.library.Library("aten", "IMPL")
for _overload in (
    *("empty.memory_format", "empty_strided", "arange", "arange.start", "arange.start_step"),
    *("linspace", "eye", "eye.m", "randperm", "tril_indices", "triu_indices"),
):
    _library.impl(_overload, _factory(_overload), "PrivateUse1")
# `torch.tensor(…, device=…)` comes here, past `OnDevice`.
_library.impl("_copy_from", _copied, "PrivateUse1")
# What torch asks a backend in C++; its own functions in front of these stay what they are.
torch._C._accelerator_synchronizeDevice = _synchronize
torch._C._accelerator_isAllocatorInitialized = lambda: True
torch._C._accelerator_getDeviceStats = _statistics
torch._C._accelerator_resetPeakStats = _reset_peak
torch._C._accelerator_getMemoryInfo = lambda index: (memory.total - memory.allocated, memory.total)
torch._C._accelerator_emptyCache = lambda: None


@contextmanager
def attached(total_memory: int = 2**40) -> Iterator[torch.device]:
    """The device, with that many bytes of memory, for as long as the context lasts."""
    waits.clear()
    operations.clear()
    memory.total, memory.peak, module.available = total_memory, memory.allocated, True
    try:
        yield DEVICE
    finally:
        memory.total, module.available, module.has_float64 = 2**40, False, True
