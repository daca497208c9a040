"""A method is one point of three independent choices: metric × scope × update."""

from dataclasses import dataclass, replace

from .errors import PruningError
from .patterns import Pattern, Unstructured

METRICS = ("magnitude", "wanda", "sparsegpt")
SCOPES = ("layer", "row", "block", "residual")
UPDATES = ("none", "sequential", "joint")


@dataclass(frozen=True)
class Method:
    """What is cheap to lose, over what the smallest are chosen, what the survivors do.

    Attributes:
        metric: score |W_ij|·s_j with s_j = 1 (`magnitude`), ‖X_j‖₂ (`wanda`) or 1/U_jj
            (`sparsegpt`, whose usual form is the square, with the same order).
        scope: `layer`, `row`, `block` of B columns or `residual` (all columns not yet processed, on
            updated weights). It chooses unstructured masks only: n:m always chooses in groups of m,
            structured always among columns.
        update: `none`, `sequential` (column by column, SparseGPT) or `joint` (all removals of a
            block at once, Thanos).
    """

    metric: str
    scope: str
    update: str

    @property
    def needs_factor(self) -> bool:
        """Whether the inverse factor of the Gram matrix enters."""
        return self.update != "none" or self.metric == "sparsegpt"


METHODS = {
    "magnitude": Method("magnitude", "layer", "none"),
    "wanda": Method("wanda", "row", "none"),
    "sparsegpt": Method("sparsegpt", "block", "sequential"),
    "thanos": Method("wanda", "residual", "joint"),
}


def compose(
    name: str,
    pattern: Pattern,
    metric: str | None = None,
    scope: str | None = None,
    update: str | None = None,
) -> Method:
    """The named method with any of its three choices replaced.

    Raises:
        PruningError: for an unknown name or choice, and for combinations without a meaning.
    """
    if name not in METHODS:
        raise PruningError(f"unknown method {name!r}; known: {', '.join(METHODS)}")
    given = {"metric": metric, "scope": scope, "update": update}
    for part, known in (("metric", METRICS), ("scope", SCOPES), ("update", UPDATES)):
        if given[part] is not None and given[part] not in known:
            raise PruningError(f"unknown {part} {given[part]!r}; known: {', '.join(known)}")
    method = replace(METHODS[name], **{part: value for part, value in given.items() if value})
    if not isinstance(pattern, Unstructured):
        if scope is not None and scope != METHODS[name].scope:
            raise PruningError(
                f"scope {scope!r} has no meaning for pattern {pattern}: n:m chooses within groups "
                "and structured among columns; leave the scope out"
            )
    elif method.scope == "residual" and method.update == "none":
        raise PruningError(
            "scope 'residual' without an update is scope 'layer': weights that don't move leave "
            "the choice as it was; use scope=layer"
        )
    return method
