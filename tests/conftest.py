"""Fixtures shared by all tests."""

import os

import torch

# Two threads more or less change the last bits; the suite runs the same everywhere.
torch.set_num_threads(1)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
