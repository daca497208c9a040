"""The four methods written naively, in float64, from the paper's formulas: what tests compare with.

Symbols as in the paper: W (c, b) the weight, G = X Xᵀ (b, b) the Gram matrix of its inputs, H the
Gram matrix made regular, B the block size, p the sparsity, alpha the share of outlier rows. A mask
is True where a weight is removed. Nothing here is fast: the trailing block of H is inverted anew
for every block (Thanos) or column (SparseGPT), and every row solves its own system.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pruned:
    """What a method leaves of a layer, and which weights it removed."""

    weight: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Method:
    """A point of the design space: metric, scope, update."""

    metric: str
    scope: str
    update: str


METHODS = {
    "magnitude": Method("magnitude", "layer", "none"),
    "wanda": Method("wanda", "row", "none"),
    "sparsegpt": Method("sparsegpt", "block", "sequential"),
    "thanos": Method("wanda", "residual", "joint"),
    "admm": Method("wanda", "layer", "alternating"),
}


@dataclass(frozen=True)
class Alternation:
    """Of the alternating update: iterations, penalty ρ, and over how many the sparsity rises."""

    iterations: int = 20
    penalty: float = 1.0
    schedule: int = 15


def prune(
    W: Tensor,
    G: Tensor,
    method: str,
    pattern: str,
    *,
    B: int = 128,
    alpha: float = 0.0,
    damping: float = 0.01,
    outlier_score: str = "exact",
    alternation: Alternation = Alternation(),
    given_mask: Tensor | None = None,
    **choices: str,
) -> Pruned:
    """Prune a layer; `choices` replace the method's metric, scope or update."""
    W, G = W.double(), G.double()
    c, b = W.shape
    chosen = Method(**{**vars(METHODS[method]), **choices})
    rows = rows_to_prune(W, G, alpha, exact=outlier_score == "exact")
    if given_mask is not None:
        rows = given_mask.any(1).nonzero().flatten()
    R = W[rows]
    if chosen.update != "none":
        R[:, G.diagonal() == 0] = 0
    H = regularised(G, damping)
    kind, value = parse(pattern)
    if chosen.update == "alternating":
        choice = Choice(kind, value, c, B, chosen.scope)
        given = None if given_mask is None else given_mask[rows]
        pruned = alternating(R, G, damping, chosen.metric, choice, alternation, given)
    elif given_mask is not None:
        pruned = prune_given(R, H, given_mask[rows], B, kind, chosen)
    elif kind == "n:m":
        pruned = prune_semi_structured(R, G, H, *value, B, chosen)
    elif kind == "structured":
        s = ceil(value * c * b / len(R))
        pruned = prune_structured(R, G, H, s, B, method)
    else:
        pruned = prune_unstructured(R, G, H, value, c, B, chosen)
    weight, mask = W.clone(), torch.zeros(c, b, dtype=torch.bool)
    weight[rows], mask[rows] = pruned.weight, pruned.mask
    return Pruned(weight, mask)


def parse(pattern: str) -> tuple[str, Fraction | tuple[int, int]]:
    """`0.5`, `unstructured:0.5`, `structured:0.3` or `2:4`; sparsities are exact fractions."""
    if pattern.startswith("structured:"):
        return "structured", Fraction(pattern.removeprefix("structured:"))
    if pattern[0].isdigit() and ":" in pattern:
        n, m = pattern.split(":")
        return "n:m", (int(n), int(m))
    return "unstructured", Fraction(pattern.removeprefix("unstructured:"))


# Preparation


def regularised(G: Tensor, damping: float) -> Tensor:
    """G with ones for dead inputs, plus λ · mean(diag G) · I."""
    H = G.clone()
    dead = G.diagonal() == 0
    H[dead, dead] = 1
    return H + damping * H.diagonal().mean() * torch.eye(len(H), dtype=H.dtype)


def rows_to_prune(W: Tensor, G: Tensor, alpha: float, exact: bool) -> Tensor:
    """All rows but the ⌈α·c⌉ with the largest h_i, in ascending order."""
    h = (W @ G * W).sum(1) if exact else W**2 @ G.diagonal()
    outliers = ceil(Fraction(str(alpha)) * len(W))
    return torch.sort(h, descending=True, stable=True).indices[outliers:].sort().values


# Choice of the weights to remove


def column_scale(metric: str, G: Tensor, H: Tensor) -> Tensor:
    """The metric as the s_j of the score |W_ij| · s_j, (b,): 1, ‖X_j‖ or 1 / U_jj.

    U_jj² is the first entry of the trailing inverse; (W_ij / U_jj)² has the same order as its root.
    """
    if metric == "magnitude":
        return torch.ones(len(G), dtype=G.dtype)
    if metric == "wanda":
        return G.diagonal().sqrt()
    return torch.stack([torch.linalg.inv(H[j:, j:])[0, 0] for j in range(len(H))]).rsqrt()


def smallest(scores: Tensor, k: int) -> Tensor:
    """Mask of the k smallest entries; of equal ones those that come first in row-major order."""
    mask = torch.zeros(scores.numel(), dtype=torch.bool)
    mask[torch.sort(scores.flatten(), stable=True).indices[:k]] = True
    return mask.view(scores.shape)


def smallest_in_rows(scores: Tensor, k: int) -> Tensor:
    """Mask of the k smallest entries of every row."""
    return torch.stack([smallest(row, k) for row in scores])


# Updates of the weights that stay


def joint(W: Tensor, H: Tensor, mask: Tensor, i1: int, i2: int) -> None:
    """Thanos: a row's removals in [i1, i2) at once; λ · A_qq = w_q, then W_i −= λ · A_q: ."""
    A = torch.linalg.inv(H[i1:, i1:])
    for i in range(len(W)):
        q = mask[i, i1:i2].nonzero().flatten()
        solution = torch.linalg.solve(A[q][:, q], W[i, i1 + q])  # A is symmetric
        W[i, i1:] -= solution @ A[q]
        W[i, i1 + q] = 0


def sequential(W: Tensor, H: Tensor, mask: Tensor, i1: int, i2: int) -> None:
    """SparseGPT: column by column; only the weights to the right move."""
    for j in range(i1, i2):
        A = torch.linalg.inv(H[j:, j:])
        e = torch.where(mask[:, j], W[:, j], 0) / A[0, 0]
        W[:, j:] -= torch.outer(e, A[0])
        W[mask[:, j], j] = 0


def none(W: Tensor, H: Tensor, mask: Tensor, i1: int, i2: int) -> None:
    """Magnitude and Wanda: the other weights stay as they are."""
    W[:, i1:i2][mask[:, i1:i2]] = 0


UPDATES = {"joint": joint, "sequential": sequential, "none": none}


# Patterns


def prune_unstructured(
    W: Tensor, G: Tensor, H: Tensor, p: Fraction, c: int, B: int, method: Method
) -> Pruned:
    """W holds the rows to prune, c counts all rows of the layer: its sparsity is p."""
    W = W.clone()
    rows, b = W.shape
    mask = torch.zeros(rows, b, dtype=torch.bool)
    remaining = floor(p * c * b)
    scale = column_scale(method.metric, G, H)
    scores = W.abs() * scale
    if method.scope == "layer":
        mask = smallest(scores, remaining)
    elif method.scope == "row":
        mask = smallest_in_rows(scores, floor(p * c * b / rows))
    for i1 in range(0, b, B):
        i2 = min(i1 + B, b)
        scores = W.abs() * scale
        if method.scope == "block":
            mask[:, i1:i2] = smallest(scores[:, i1:i2], floor(p * c * (i2 - i1)))
        elif method.scope == "residual":
            choice = smallest(scores[:, i1:], remaining)
            mask[:, i1:i2] = choice[:, : i2 - i1]
            remaining -= int(mask[:, i1:i2].sum())
        UPDATES[method.update](W, H, mask, i1, i2)
    return Pruned(W, mask)


def prune_semi_structured(
    W: Tensor, G: Tensor, H: Tensor, n: int, m: int, B: int, method: Method
) -> Pruned:
    """At most n of m consecutive weights stay; a sequential update chooses group by group."""
    W = W.clone()
    rows, b = W.shape
    mask = torch.zeros(rows, b, dtype=torch.bool)
    scale = column_scale(method.metric, G, H)
    step = m if method.update == "sequential" else ceil(B / m) * m
    for i1 in range(0, b, step):
        i2 = min(i1 + step, b)
        groups = (W.abs() * scale)[:, i1:i2].reshape(-1, m)
        mask[:, i1:i2] = smallest_in_rows(groups, m - n).view(rows, i2 - i1)
        UPDATES[method.update](W, H, mask, i1, i2)
    return Pruned(W, mask)


def prune_structured(W: Tensor, G: Tensor, H: Tensor, s: int, B: int, method: str) -> Pruned:
    """s whole columns are removed."""
    W = W.clone()
    b = W.shape[1]
    mask = torch.zeros(W.shape, dtype=torch.bool)
    if method == "magnitude":
        mask[:, smallest(W.abs().mean(0), s)] = True
        none(W, H, mask, 0, b)
    elif method == "wanda":
        mask[:, smallest((W.abs() * column_scale("wanda", G, H)).mean(0), s)] = True
        none(W, H, mask, 0, b)
    elif method == "thanos":
        v = G.diagonal() * (W**2).sum(0)
        mask[:, smallest(v, s)] = True
        joint(W, H, mask, 0, b)
    else:
        scale = column_scale("sparsegpt", G, H)
        for i1 in range(0, b, B):
            i2 = min(i1 + B, b)
            columns = floor(Fraction(s * i2, b)) - floor(Fraction(s * i1, b))
            losses = ((W * scale) ** 2).sum(0)
            mask[:, i1:i2] = smallest(losses[i1:i2], columns)
            sequential(W, H, mask, i1, i2)
    return Pruned(W, mask)


def prune_given(W: Tensor, H: Tensor, mask: Tensor, B: int, kind: str, method: Method) -> Pruned:
    """A mask that comes from outside; whole columns go at once where the update is joint."""
    W = W.clone()
    if kind == "structured" and method.update == "joint":
        B = W.shape[1]
    for i1 in range(0, W.shape[1], B):
        i2 = min(i1 + B, W.shape[1])
        UPDATES[method.update](W, H, mask, i1, i2)
    return Pruned(W, mask)


# The alternating update


@dataclass(frozen=True)
class Choice:
    """What a mask is chosen by: the pattern's kind and value, c, B and the scope."""

    kind: str
    value: Fraction | tuple[int, int]
    c: int
    B: int
    scope: str

    def mask(self, V: Tensor, share: float) -> Tensor:
        """Of the smallest |V_ij|, that share of what the pattern removes."""
        rows, b = V.shape
        if self.kind == "n:m":
            n, m = self.value
            removed = round(share * (m - n))
            return smallest_in_rows(V.abs().reshape(-1, m), removed).view(rows, b)
        if self.kind == "structured":
            s = round(share * ceil(self.value * self.c * b / rows))
            mask = torch.zeros(V.shape, dtype=torch.bool)
            mask[:, smallest((V**2).sum(0), s)] = True
            return mask
        whole = share == 1  # exact where it matters
        count = self.value * self.c if whole else share * float(self.value) * self.c
        if self.scope == "row":
            return smallest_in_rows(V.abs(), floor(count * b / rows))
        step = self.B if self.scope == "block" else b
        parts = [V[:, i : i + step].abs() for i in range(0, b, step)]
        return torch.cat([smallest(part, floor(count * part.shape[1])) for part in parts], 1)


def alternating(
    W: Tensor,
    G: Tensor,
    damping: float,
    metric: str,
    choice: Choice,
    alternation: Alternation,
    given: Tensor | None,
) -> Pruned:
    """ADMM with V, Z and U as they are in the papers, an explicit inverse, all products anew."""
    s = column_scale(metric, G, regularised(G, damping))
    s = torch.where(s == 0, torch.ones_like(s), s)
    scaled = G / s / s[:, None]
    dead = G.diagonal() == 0
    scaled[dead, dead] = 1
    m = scaled.diagonal().mean()
    identity = torch.eye(len(G), dtype=G.dtype)
    A = scaled + damping * m * identity
    rho = alternation.penalty * m
    V0 = W * s
    V, U = V0.clone(), torch.zeros_like(V0)

    def mask_of(share: float) -> Tensor:
        return choice.mask(V + U, share) if given is None else given

    start = W.masked_fill(mask_of(1.0), 0)
    start_mask = mask_of(1.0)
    for t in range(1, alternation.iterations + 1):
        rising = t < alternation.schedule
        mask = mask_of(1 - (1 - t / alternation.schedule) ** 3 if rising else 1.0)
        Z = (V + U).masked_fill(mask, 0)
        U = U + V - Z
        V = (V0 @ A + rho * (Z - U)) @ torch.linalg.inv(A + rho * identity)
    mask = mask_of(1.0)
    result = (V + U).masked_fill(mask, 0) / s
    if loss(W, start, G) < loss(W, result, G):
        return Pruned(start, start_mask)
    return Pruned(result, mask)


# What a result is judged by


def optimal_row(w: Tensor, G: Tensor, removed: Tensor) -> Tensor:
    """The best row with zeros in `removed`: least squares on the kept inputs, (b,)."""
    kept = ~removed
    best = torch.zeros_like(w)
    best[kept] = torch.linalg.lstsq(
        G[kept][:, kept], (G[kept] @ w)[:, None], driver="gelsd"
    ).solution[:, 0]
    return best


def loss(W: Tensor, pruned: Tensor, G: Tensor) -> float:
    """‖(W − Ŵ) X‖² from G."""
    D = W.double() - pruned.double()
    return float((D @ G.double() * D).sum())
