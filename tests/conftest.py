"""Fixtures shared by all tests."""

import os
import tempfile

import torch

# Two threads more or less change the last bits; the suite runs the same everywhere.
torch.set_num_threads(1)
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Hashes of files that tests write are nothing to remember.
_cache = tempfile.TemporaryDirectory(prefix="thanos-cache-")
os.environ["THANOS_CACHE"] = _cache.name
