"""The alternating update against its papers' form, and what holds whatever the layer."""

import oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from layers import SPARSITIES, Layer, layers, property_test, random_layer

from thanos.pruning import Alternation, PruningError, prune_weight

PATTERNS = ("0.5", "0.7", "2:4", "1:4", "4:8", "structured:0.25")


def prune(layer: Layer, pattern: str, iterations: int, penalty: float, schedule: int, **options):
    """The result and the oracle's."""
    choices = {k: v for k, v in options.items() if k in ("metric", "scope", "damping")}
    alpha, B = options.get("alpha", 0.0), options.get("B", 128)
    expected = oracle.prune(
        layer.W,
        layer.G,
        "admm",
        pattern,
        B=B,
        alpha=alpha,
        alternation=oracle.Alternation(iterations, penalty, schedule),
        **choices,
    )
    result = prune_weight(
        layer.W,
        layer.statistics(),
        "admm",
        pattern,
        block_size=B,
        outlier_fraction=alpha,
        alternation=Alternation(iterations, penalty, schedule),
        dtype=torch.float64,
        **choices,
    )
    return result, expected


def check(layer: Layer, pattern: str, *alternation: float, **options) -> None:
    """The oracle's mask and weights; where layers tie in their scores, its loss and counts."""
    result, expected = prune(layer, pattern, *alternation, **options)
    assert int(result.mask.sum()) == int(expected.mask.sum())
    assert (result.weight[result.mask] == 0).all()
    if torch.equal(result.mask, expected.mask):
        difference = (result.weight - expected.weight).norm()
        assert difference <= 1e-7 * expected.weight.norm()
    else:  # copies of an input tie but for rounding, and which of them goes is rounding's
        total = oracle.loss(layer.W, torch.zeros_like(layer.W), layer.G)
        losses = [oracle.loss(layer.W, w.weight, layer.G) for w in (result, expected)]
        assert abs(losses[0] - losses[1]) <= 0.05 * max(losses) + 1e-9 * total


@pytest.mark.parametrize("metric", ["magnitude", "wanda", "sparsegpt"])
@pytest.mark.parametrize("scope", ["layer", "row", "block"])
@pytest.mark.parametrize("alternation", [(1, 1.0, 0), (7, 0.3, 5), (20, 1.0, 15)])
def test_a_fixed_number_of_iterations(metric: str, scope: str, alternation) -> None:
    """On layers without ties the masks are the same to the last entry, and so are the weights."""
    for seed in range(3):
        layer = random_layer(c=14, b=24, tokens=60, seed=seed)
        result, expected = prune(layer, "0.6", *alternation, metric=metric, scope=scope, B=10)
        assert torch.equal(result.mask, expected.mask)
        assert torch.allclose(result.weight, expected.weight, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("alpha", [0.0, 0.2])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_and_outlier_rows(pattern: str, alpha: float) -> None:
    for seed in range(2):
        layer = random_layer(c=14, b=24, tokens=60, seed=seed)
        result, expected = prune(layer, pattern, 20, 1.0, 15, alpha=alpha)
        assert torch.equal(result.mask, expected.mask)
        assert torch.allclose(result.weight, expected.weight, rtol=1e-8, atol=1e-10)
        assert result.details["outlier_rows"] == (3 if alpha else 0)


@property_test(60)
@given(
    layer=layers(m=4, least_rows=2),
    pattern=st.sampled_from((*SPARSITIES, "2:4", "1:4", "structured:0.29")),
    alpha=st.sampled_from((0.0, 0.0, 0.1)),
    damping=st.sampled_from((0.1, 0.01, 0.0)),
)
def test_any_layer(layer: Layer, pattern: str, alpha: float, damping: float) -> None:
    """Singular Gram matrices, dead inputs, inputs that are copies: no damping is ever too small."""
    if alpha and pattern in ("0.9", "0.99"):
        alpha = 0.0
    check(layer, pattern, 6, 1.0, 3, alpha=alpha, damping=damping)


@pytest.mark.parametrize("pattern", PATTERNS)
@property_test(15)
@given(layer=layers(m=8), penalty=st.sampled_from((0.01, 1.0, 30.0)))
def test_never_worse_than_its_start(pattern: str, layer: Layer, penalty: float) -> None:
    """The start is the first mask on weights that have not moved, whatever the iterations do."""
    result = prune_weight(
        layer.W,
        layer.statistics(),
        "admm",
        pattern,
        alternation=Alternation(5, penalty, 0),
        dtype=torch.float64,
    )
    # Wanda's choice over the layer, groups or columns, of weights whose dead inputs are gone.
    choice = oracle.Choice(*oracle.parse(pattern), len(layer.W), 128, "layer")
    scores = layer.W * layer.G.diagonal().sqrt()
    start = layer.W.masked_fill(choice.mask(scores, 1.0), 0)
    total = oracle.loss(layer.W, torch.zeros_like(layer.W), layer.G)
    before, after = (oracle.loss(layer.W, w, layer.G) for w in (start, result.weight))
    assert after <= before + 1e-10 * total


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_start_is_kept_where_the_iterations_end_worse(pattern: str) -> None:
    """One iteration of a tiny penalty hardly turns from the dense weights; the record says so."""
    layer = random_layer(c=10, b=16, tokens=9)
    for alternation, kept in (((1, 1e-6, 0), 1), ((20, 1.0, 15), 0)):
        result, expected = prune(layer, pattern, *alternation)
        assert torch.allclose(result.weight, expected.weight, rtol=1e-7, atol=1e-9)
        assert result.details["kept_start"] == kept


def test_its_loss_is_below_that_of_thanos_and_refinement_lowers_it() -> None:
    for pattern in ("0.5", "0.7", "2:4"):
        layer = random_layer(c=32, b=64, tokens=256)

        def error(method: str, refine_steps: int = 0, layer=layer, pattern=pattern) -> float:
            statistics = layer.statistics()
            return prune_weight(
                layer.W, statistics, method, pattern, refine_steps=refine_steps, dtype=torch.float64
            ).relative_error

        assert error("admm", 20) < error("admm") < error("thanos")


@pytest.mark.parametrize("update", ["none", "sequential", "joint", "alternating"])
@pytest.mark.parametrize("pattern", ["0.5", "2:4", "structured:0.25"])
def test_a_mask_from_outside_goes_with_every_update(pattern: str, update: str) -> None:
    layer = random_layer(c=12, b=16, tokens=48)
    layer.X[:, 3] = 0
    mask = oracle.prune(layer.W, layer.G, "wanda", pattern, alpha=0.2).mask
    if pattern == "0.5":
        mask = mask & torch.ones_like(mask).index_fill_(0, torch.tensor([4]), 0)
        pattern = repr(float(mask.double().mean()))
    result = prune_weight(
        layer.W,
        layer.statistics(),
        "admm",
        pattern,
        block_size=8,
        update=update,
        given_mask=mask,
        dtype=torch.float64,
    )
    expected = oracle.prune(layer.W, layer.G, "admm", pattern, B=8, update=update, given_mask=mask)
    assert torch.equal(result.mask, mask)
    assert torch.allclose(result.weight, expected.weight, rtol=1e-8, atol=1e-10)
    dense = ~mask.any(1)
    assert torch.equal(result.weight[dense], layer.W[dense])
    assert (result.weight[mask] == 0).all()


@pytest.mark.parametrize(
    ("pattern", "mask", "words"),
    [
        ("0.5", torch.zeros(6, 12, dtype=torch.bool), "removes nothing"),
        ("0.5", torch.eye(6, 12, dtype=torch.bool), "does not have the pattern"),
        ("2:4", torch.arange(12).expand(6, 12) < 6, "does not have the pattern"),
        ("structured:0.5", torch.arange(72).view(6, 12) % 7 < 3, "does not have the pattern"),
        ("0.5", torch.ones(6, 11, dtype=torch.bool), "of \\(6, 11\\) weights"),
    ],
)
def test_a_mask_that_is_not_the_patterns(pattern: str, mask: torch.Tensor, words: str) -> None:
    layer = random_layer(c=6, b=12, tokens=40)
    with pytest.raises(PruningError, match=words):
        prune_weight(layer.W, layer.statistics(), "admm", pattern, given_mask=mask)


@pytest.mark.parametrize(
    ("values", "words"),
    [((0, 1.0, 0), "iterations 0"), ((5, 0.0, 0), "penalty 0"), ((5, 1.0, 6), "schedule 6")],
)
def test_values_out_of_range(values: tuple[int, float, int], words: str) -> None:
    with pytest.raises(PruningError, match=words):
        Alternation(*values)


def test_float32_stays_close_to_float64() -> None:
    layer = random_layer(c=48, b=96, tokens=70)  # singular
    errors = [
        prune_weight(
            layer.W.to(dtype), layer.statistics(dtype=dtype), "admm", "0.5", dtype=dtype
        ).relative_error
        for dtype in (torch.float32, torch.float64)
    ]
    assert errors[0] == pytest.approx(errors[1], rel=2e-3)
