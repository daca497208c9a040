"""The error that the pruning mathematics raises for impossible requests."""


class PruningError(ValueError):
    """A pattern, option or layer that cannot be pruned; the message says why and the remedy."""
