"""A method is one point of three independent choices: metric × scope × update."""

from dataclasses import dataclass, replace

from .errors import PruningError
from .patterns import Pattern, SemiStructured, Structured, Unstructured

METRICS = ("magnitude", "wanda", "sparsegpt")
SCOPES = ("layer", "row", "block", "residual")
UPDATES = ("none", "sequential", "joint", "alternating")


@dataclass(frozen=True)
class Method:
    """What is cheap to lose, over what the smallest are chosen, what the survivors do.

    Attributes:
        metric: score |W_ij|·s_j with s_j = 1 (`magnitude`), ‖X_j‖₂ (`wanda`) or 1/U_jj
            (`sparsegpt`, whose usual form is the square, with the same order).
        scope: `layer`, `row`, `block` of B columns or `residual` (all columns not yet processed, on
            updated weights). It chooses unstructured masks only: n:m always chooses in groups of m,
            structured always among columns.
        update: `none`, `sequential` (column by column, SparseGPT), `joint` (all removals of a block
            at once, Thanos) or `alternating` (mask and all columns in turn, ADMM).
    """

    metric: str
    scope: str
    update: str

    @property
    def needs_factor(self) -> bool:
        """Whether the inverse factor of the Gram matrix enters."""
        return self.update != "none" or self.metric == "sparsegpt"

    def walks_blocks(self, pattern: Pattern, masked: bool = False) -> bool:
        """Whether the result depends on B, the columns pruned at a time.

        `masked` says that the mask is given, so that nothing is chosen.
        """
        if isinstance(pattern, Structured):
            return self.update == "sequential"
        chooses = isinstance(pattern, Unstructured) and self.scope == "block" and not masked
        return chooses or self.update in ("sequential", "joint")

    def modules_unused(
        self, pattern: Pattern, refine_steps: int, correction: float = 0.0
    ) -> set[str]:
        """Modules of this package that pruning so never runs: their code is none of its causes."""
        used = {
            "factorization": self.needs_factor or correction > 0,
            "updates": self.update == "joint",
            "sequential": self.update == "sequential",
            "alternating": self.update == "alternating",
            "conjugate_gradient": refine_steps > 0
            or (self.update == "joint" and not isinstance(pattern, Structured)),
            "refinement": refine_steps > 0,
            "correction": correction > 0,
        }
        return {module for module, runs in used.items() if not runs}


@dataclass(frozen=True)
class Alternation:
    """How the alternating update runs; the defaults are those of arXiv 2401.02938.

    Attributes:
        iterations: projections and solutions in turn.
        penalty: ρ, in units of the mean diagonal of the scaled Gram matrix.
        schedule: iterations over which the sparsity rises to its full value, by the cube of what is
            left; 0 asks for all of it at once.
    """

    iterations: int = 20
    penalty: float = 1.0
    schedule: int = 15

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise PruningError(f"iterations {self.iterations} must be at least 1")
        if not 0 < self.penalty < float("inf"):
            raise PruningError(f"penalty {self.penalty:g} must be positive")
        if not 0 <= self.schedule <= self.iterations:
            raise PruningError(
                f"schedule {self.schedule} must lie between 0 and the {self.iterations} iterations"
            )

    def share(self, iteration: int) -> float:
        """Share of the removals that the mask of an iteration, counted from 1, makes."""
        if iteration >= self.schedule:
            return 1.0
        return 1 - (1 - iteration / self.schedule) ** 3


METHODS = {
    "magnitude": Method("magnitude", "layer", "none"),
    "wanda": Method("wanda", "row", "none"),
    "sparsegpt": Method("sparsegpt", "block", "sequential"),
    "thanos": Method("wanda", "residual", "joint"),
    "admm": Method("wanda", "layer", "alternating"),
}

DEFAULT_BLOCK_SIZE = 128
DEFAULT_BLOCK_SIZE_SEMI_STRUCTURED = 512


def default_block_size(pattern: Pattern) -> int:
    """B where none is given: 128, for n:m 512 (paper, section 6)."""
    if isinstance(pattern, SemiStructured):
        return DEFAULT_BLOCK_SIZE_SEMI_STRUCTURED
    return DEFAULT_BLOCK_SIZE


def compose(
    name: str | Method,
    pattern: Pattern,
    metric: str | None = None,
    scope: str | None = None,
    update: str | None = None,
) -> Method:
    """The method, of that name or composed already, with any of its three choices replaced.

    Raises:
        PruningError: for an unknown name or choice, and for combinations without a meaning.
    """
    if isinstance(name, str) and name not in METHODS:
        raise PruningError(f"unknown method {name!r}; known: {', '.join(METHODS)}")
    named = METHODS[name] if isinstance(name, str) else name
    given = {"metric": metric, "scope": scope, "update": update}
    for part, known in (("metric", METRICS), ("scope", SCOPES), ("update", UPDATES)):
        if given[part] is not None and given[part] not in known:
            raise PruningError(f"unknown {part} {given[part]!r}; known: {', '.join(known)}")
    method = replace(named, **{part: value for part, value in given.items() if value})
    if not isinstance(pattern, Unstructured):
        if scope is not None and scope != named.scope:
            raise PruningError(
                f"scope {scope!r} has no meaning for pattern {pattern}: n:m chooses within groups "
                "and structured among columns; leave the scope out"
            )
    elif method.scope == "residual" and method.update == "none":
        raise PruningError(
            "scope 'residual' without an update is scope 'layer': weights that don't move leave "
            "the choice as it was; use scope=layer"
        )
    elif method.scope == "residual" and method.update == "alternating":
        raise PruningError(
            "scope 'residual' with update 'alternating' is scope 'layer': it walks no columns and "
            "leaves none behind; use scope=layer"
        )
    return method
