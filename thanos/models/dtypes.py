"""The formats of stored weights that the project reads."""

import torch

# By the name that safetensors has for it, in the order in which it compares them.
TORCH_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "F32": torch.float32,
    "F64": torch.float64,
    "I64": torch.int64,
}
