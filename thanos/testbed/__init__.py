"""The embedded testbed: two small decoders trained on the docstrings of the locked dependencies."""
