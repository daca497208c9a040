"""Every point of metric × scope × update × refinement runs, or is refused with a reason."""

from itertools import product

import pytest
import torch
from layers import random_layer

from thanos.pruning import METRICS, SCOPES, UPDATES, PruningError, parse_pattern, prune_weight

PATTERNS = ("0.5", "2:4", "structured:0.25")
LAYER = random_layer(c=12, b=16, tokens=48)


def refused(pattern: str, scope: str, update: str) -> str | None:
    """Words of the reason why a combination has no meaning; the base is Thanos (residual)."""
    if pattern != "0.5":
        return None if scope == "residual" else "no meaning for pattern"
    still = scope == "residual" and update in ("none", "alternating")
    return "is scope 'layer'" if still else None


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(("metric", "scope", "update"), list(product(METRICS, SCOPES, UPDATES)))
def test_every_combination(metric: str, scope: str, update: str, pattern: str) -> None:
    def prune(refine_steps: int):
        return prune_weight(
            LAYER.W,
            LAYER.statistics(),
            "thanos",
            pattern,
            block_size=8,
            refine_steps=refine_steps,
            metric=metric,
            scope=scope,
            update=update,
            dtype=torch.float64,
        )

    if reason := refused(pattern, scope, update):
        with pytest.raises(PruningError, match=reason):
            prune(refine_steps=0)
        return
    plain, refined = prune(refine_steps=0), prune(refine_steps=20)
    wanted = 0.25 if "structured" in pattern else 0.5
    assert plain.sparsity == refined.sparsity == wanted
    assert torch.equal(plain.mask, refined.mask)
    assert refined.relative_error <= plain.relative_error * (1 + 1e-12)
    # Only what one block updates jointly is the optimum already.
    if update == "none":
        assert refined.relative_error < plain.relative_error


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt", "thanos"])
def test_naming_a_methods_own_choices_changes_nothing(method: str, pattern: str) -> None:
    from thanos.pruning import METHODS, compose

    own = METHODS[method]
    named = compose(method, parse_pattern(pattern), own.metric, own.scope, own.update)
    assert named == compose(method, parse_pattern(pattern)) == own
