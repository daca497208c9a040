"""Make a pruned model narrower, so far that its configuration alone says what is gone."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from thanos.errors import UserError
from thanos.models import LinearLayer, StreamedBlocks, linear_layers
from thanos.models.experts import has_experts
from thanos.models.replay import Recording, record_probe
from thanos.models.skeleton import build_skeleton, set_tensor
from thanos.models.unread_rows import Run, unread_rows

from .widths import Width, changed_config, smaller_widths

# In which structure is found out: where no gradient is rounded to zero.
DTYPE = torch.float32
_TOLERANCE = 1e-4  # of a block's outputs, relative to the largest: sums in another order


@dataclass
class Narrowing:
    """What of a model goes; `find_narrowing` makes one.

    Attributes:
        source: of the blocks, in float32.
        recording: of a probe, to run any block on.
        dead: of each layer by its name within a block, of each block that has it by its number,
            (b,) bool: the columns that no row reads.
        widths: those that become smaller.
    """

    source: StreamedBlocks
    recording: Recording
    dead: dict[str, dict[int, Tensor]]
    widths: list[Width] = field(default_factory=list)

    def changes(self, widths: Collection[Width] | None = None) -> dict[str, Any]:
        """Keys of the decoder's configuration."""
        chosen = self.widths if widths is None else widths
        return {key: value for width in chosen for key, value in width.changes.items()}

    def weights(self, index: int) -> dict[str, Tensor]:
        """What is left of block `index`, where something goes, by the names in the model."""
        block = self.source.take(index, "cpu")
        layers = _layers(block)
        left = _left(self._run(index, block), layers, self._removed(index, self.widths))
        name = self.source.blocks.name_of(index)
        found = {f"{name}.{key}": tensor.clone() for key, tensor in left.items()}
        self.source.give_back(index, block, ())
        return found

    def remaining(self) -> dict[str, int]:
        """Of each layer within its block how many columns, in all blocks, are zero and stay."""
        gone = {width.layer: width.count * width.unit for width in self.widths}
        counts = {
            layer: sum(int(dead.sum()) - gone.get(layer, 0) for dead in its.values())
            for layer, its in self.dead.items()
        }
        return {layer: count for layer, count in counts.items() if count}

    def add(self, layer: str) -> None:
        """Let the columns of a layer go, if the configuration can say so."""
        its = self.dead[layer]
        if len({len(dead) for dead in its.values()}) > 1 or not all(its[i].any() for i in its):
            return
        index = next(iter(its))
        block = self.source.take(index, "cpu")
        run = self._run(index, block)
        feeding = unread_rows(run, _layers(block), {layer: its[index]})
        if any(unread.any() for unread in feeding.values()):
            config = self.source.config
            guesses = smaller_widths(config, layer, torch.stack([*its.values()]))
            found = next((g for g in guesses if self._fits(g, index, block, run)), None)
            self.widths += [] if found is None else [found]
        self.source.give_back(index, block, ())

    def _fits(self, guess: Width, index: int, block: nn.Module, run: Run) -> bool:
        """Whether the configuration takes the guess and describes just what is left of a block."""
        widths = [*self.widths, guess]
        config = changed_config(self.source.config, self.changes(widths))
        smaller = None if config is None else _skeleton(config)
        if smaller is None:
            return False
        left = _left(run, _layers(block), self._removed(index, widths))
        blocks, name = self.source.blocks, self.source.blocks.name_of(index)
        expected = self.source.shapes | {
            f"{name}.{key}": tuple(tensor.shape) for key, tensor in left.items()
        }
        shapes = {key: tuple(tensor.shape) for key, tensor in smaller.state_dict().items()}
        if expected.keys() != shapes.keys() or any(
            shapes[key] != shape
            for key, shape in expected.items()
            if key.startswith(f"{name}.") or not key.startswith(f"{blocks.name}.")
        ):
            return False
        other = smaller.get_submodule(name)
        for key, tensor in {**block.state_dict(), **left}.items():
            set_tensor(other, key, tensor)
        return _same(run, self._run(index, other))

    def _removed(self, index: int, widths: Collection[Width]) -> dict[str, Tensor]:
        return {
            width.layer: width.removed(self.dead[width.layer][index])
            for width in widths
            if index in self.dead[width.layer]
        }

    def _run(self, index: int, block: nn.Module) -> Run:
        return next(self.recording.passes(index, block, "cpu"))


def find_narrowing(source: StreamedBlocks) -> Narrowing:
    """Find what of a pruned model's blocks can go, so that its configuration still describes it.

    Args:
        source: of the blocks, in float32.

    Raises:
        UserError: the model is a mixture of experts, or its blocks cannot be run.
    """
    if any(has_experts(module) for module in source.blocks.modules.modules()):
        raise UserError(
            f"{type(source.model).__name__} is a mixture of experts, which has no compact form "
            "yet; its checkpoint can still be packed"
        )
    recording = record_probe(source.model, source.blocks)
    dead: dict[str, dict[int, Tensor]] = {}
    for index in range(len(source.blocks)):
        block = source.take(index, "cpu")
        for layer, its in _layers(block).items():
            dead.setdefault(layer, {})[index] = ~(its.weight != 0).any(0)
        source.give_back(index, block, ())
    narrowing = Narrowing(source, recording, dead)
    for layer in dead:
        narrowing.add(layer)
    return narrowing


def _layers(block: nn.Module) -> dict[str, LinearLayer]:
    layers = linear_layers(block, "")
    return {name.removeprefix("."): layer for name, layer in layers.items()}


def _left(
    run: Run, layers: dict[str, LinearLayer], removed: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Parameters of a block that lose columns, or rows that only those read, as they are stored."""
    left = {}
    for name, unread in unread_rows(run, layers, removed).items():
        if not unread.any() and name not in removed:
            continue
        layer, kept = layers[name], (~unread).nonzero().flatten()
        weight = layer.weight.index_select(0, kept)
        if name in removed:
            weight = weight[:, ~removed[name]]
        left[f"{name}.weight"] = (weight.T if layer.transposed else weight).contiguous()
        if (bias := getattr(layer.module, "bias", None)) is not None:
            left[f"{name}.bias"] = bias.detach().index_select(0, kept)
    return left


def _skeleton(config: PreTrainedConfig) -> PreTrainedModel | None:
    try:
        return build_skeleton(config, DTYPE)
    except Exception:  # whatever a model's code runs into with numbers that do not fit
        return None


@torch.no_grad()
def _same(run: Run, other: Run) -> bool:
    expected = run()
    try:
        found = other()
    except Exception:  # shapes that fit each weight, but not each other
        return False
    return bool((found - expected).abs().max() <= _TOLERANCE * expected.abs().max())
