"""Mixtures of experts: the matrices that transformers keeps in one parameter, seen one by one."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (as everywhere)

from thanos.pruning import InputStatistics

from .linear import LinearLayer
from .parts import part

# What transformers says of an experts module, and the values of the layout that is known here:
# gate_up_proj (E, 2I, H), gate above up, and down_proj (E, H, I).
_LAYOUT = {
    "is_concatenated": True,
    "is_transposed": False,
    "has_bias": False,
    "has_gate": True,
    "has_post_expert_norm": False,
}
_NAME = re.compile(r"(?P<experts>.+)\.\d+\.(?P<part>gate|up|down)_proj")


@dataclass(frozen=True, kw_only=True)
class ExpertMatrix(LinearLayer):
    """One matrix of one expert: some rows of one entry of a parameter (E, rows, in_features)."""

    parameter: str
    expert: int
    rows: slice

    @property
    def transposed(self) -> bool:
        """Never: see `_LAYOUT`."""
        return False

    def part(self, whole: Tensor) -> Tensor:
        """The matrix in its parameter, (out_features, in_features)."""
        return whole[self.expert, self.rows]


def has_experts(module: nn.Module) -> bool:
    """Whether a module keeps the matrices of all experts in the layout that is known here."""
    return all(getattr(module, key, None) is value for key, value in _LAYOUT.items())


def expert_matrices(module: nn.Module, name: str) -> dict[str, LinearLayer]:
    """The matrices of every expert, by names such as `model.layers.0.mlp.experts.3.up_proj`."""
    count, both, _ = module.get_parameter("gate_up_proj").shape
    parts = {
        "gate_proj": ("gate_up_proj", slice(0, both // 2)),
        "up_proj": ("gate_up_proj", slice(both // 2, both)),
        "down_proj": ("down_proj", slice(None)),
    }
    return {
        f"{name}.{expert}.{part}": ExpertMatrix(
            name=f"{name}.{expert}.{part}",
            module=module,
            parameter=parameter,
            expert=expert,
            rows=rows,
        )
        for expert in range(count)
        for part, (parameter, rows) in parts.items()
    }


def parameter_of(matrix: str) -> str:
    """The full name of the parameter that holds an expert's matrix."""
    found = _NAME.fullmatch(matrix)
    if found is None:
        raise ValueError(f"{matrix} is no expert's matrix")
    return f"{found['experts']}.{'down' if found['part'] == 'down' else 'gate_up'}_proj"


def is_router(parent: nn.Module, module: nn.Module) -> bool:
    """Whether `module`, a child of `parent`, scores the experts that are another child.

    Routers stay dense: they choose who computes, and are a tiny part of the weights.
    """
    experts = [child for child in parent.children() if has_experts(child)]
    weight = getattr(module, "weight", None)
    return (
        len(experts) == 1
        and isinstance(weight, Tensor)
        and weight.dim() == 2
        and weight.shape[0] == experts[0].get_parameter("gate_up_proj").shape[0]
    )


def is_rare(layer: LinearLayer, inputs: InputStatistics) -> bool:
    """Whether too few tokens were routed to an expert for its Gram matrix to have full rank."""
    return isinstance(layer, ExpertMatrix) and inputs.tokens < layer.shape[1]


class RoutedInputs:
    """Statistics of the tokens that are routed to each expert of one module.

    Args:
        layers: the module's matrices whose inputs are wanted, by name.
        options: of `InputStatistics`.
    """

    def __init__(self, layers: dict[str, ExpertMatrix], **options: Any) -> None:
        self._module = next(iter(layers.values())).module
        self.statistics: dict[str, InputStatistics] = {}
        self._of_expert: dict[tuple[int, str], InputStatistics] = {}
        for name, layer in layers.items():
            key = (layer.expert, layer.parameter)  # gate and up share their inputs
            if key not in self._of_expert:
                self._of_expert[key] = InputStatistics(layer.shape[1], **options)
            self.statistics[name] = self._of_expert[key]

    def see(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        dense: tuple[nn.Module, Tensor] | None = None,
    ) -> None:
        """Add one call of the module: hidden states (T, H) and chosen experts (T, k).

        `dense` are the experts of the dense model and what they get for the same tokens; the tokens
        go where they are routed in the model pruned so far.
        """
        named = dict(zip(("hidden_states", "top_k_index"), args, strict=False)) | kwargs
        hidden, chosen = named["hidden_states"], named["top_k_index"]
        for expert, tokens in _routed(chosen, len(self._module.get_parameter("down_proj"))):
            up = self._of_expert.get((expert, "gate_up_proj"))
            down = self._of_expert.get((expert, "down_proj"))
            x = hidden[tokens]
            its = None if dense is None else dense[1][tokens]
            if up is not None:
                with part("gram"):
                    up.update(x, its)
            if down is not None:
                if dense is not None and its is not None:
                    its = _inner(dense[0], expert, its)
                inner = _inner(self._module, expert, x)
                with part("gram"):
                    down.update(inner, its)


def _inner(module: nn.Module, expert: int, x: Tensor) -> Tensor:
    """What an expert's last matrix gets for its inputs x (T, H), (T, I)."""
    weight = module.get_parameter("gate_up_proj")[expert]
    inner: Tensor = module._apply_gate(F.linear(x, weight))  # type: ignore[operator]
    return inner


def _routed(chosen: Tensor, experts: int) -> Iterator[tuple[int, Tensor]]:
    """Every expert that was chosen at all, and the tokens that chose it, in their order.

    Sorted on the device, so that it is waited for once and not for every expert.
    """
    flat = chosen.flatten()
    counts = (flat[:, None] == torch.arange(experts, device=flat.device)).sum(0).tolist()
    tokens = flat.argsort(stable=True) // chosen.shape[-1]
    for expert, its in enumerate(tokens.split(counts)):
        if len(its):
            yield expert, its
