"""Float32 products in float32: no TF32, no bfloat16, whatever the process' settings."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def exact_matmul() -> Iterator[None]:
    """Compute float32 matrix products in full precision inside the context."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@functools.cache
def widens_products(kind: str, dtype: torch.dtype) -> bool:
    """Whether a kind of device multiplies matrices of half precision in float32.

    The products of two such numbers are exact in float32; sums and result are float32 as well. Some
    accelerators do it, at the rate of half precision.
    """
    if dtype not in (torch.float16, torch.bfloat16):
        return False
    one = torch.ones(16, 16, dtype=dtype, device=kind)  # 16: some kernels take no less
    try:
        torch.mm(one, one, out_dtype=torch.float32)
    except (RuntimeError, TypeError):  # NotImplementedError among them
        return False
    return True
