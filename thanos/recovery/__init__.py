"""Recovery: fine-tuning of what a pruning has left, which keeps every zero.

Knows no pruning method and no config object, as `thanos.models` does not.
"""
