"""Pruned models that are smaller: packed files, and models without the columns that were removed.

`folders` and `packing` need no torch; `compact` changes a live model.
"""
