"""Find a model's decoder blocks and their linear layers by structure, never by the model's name."""

import logging
from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from thanos.errors import UserError

from .experts import expert_matrices, has_experts, is_router
from .linear import LinearLayer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DecoderBlocks:
    """The repeated blocks of a decoder and where they hang in the model."""

    name: str  # such as "model.layers"
    modules: nn.ModuleList

    def __len__(self) -> int:
        return len(self.modules)

    def name_of(self, index: int) -> str:
        """Return the full name of block `index`, such as "model.layers.3"."""
        return f"{self.name}.{index}"


def find_blocks(model: PreTrainedModel) -> DecoderBlocks:
    """Return the block list that stands nearest to the model's token embedding.

    A block list is a ModuleList whose members contain linear layers; the search widens from the
    embedding's parent outwards, so that a vision tower beside the decoder is never taken for it.

    Raises:
        UserError: there is none, or there are several and no telling which one is the decoder.
    """
    path = _embedding_name(model)
    while True:
        path = path.rpartition(".")[0]
        found = _block_lists(model, path)
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(blocks.name for blocks in found)
            raise UserError(f"{type(model).__name__} has several lists of blocks: {names}")
        if not path:
            raise UserError(f"{type(model).__name__} has no list of decoder blocks")


def linear_layers(
    block: nn.Module, name: str, skip: Collection[str] = ()
) -> dict[str, LinearLayer]:
    """Return the linear layers to prune in a block, by full name, in the order of definition.

    Args:
        block: one decoder block; its weights may lie on the meta device.
        name: the block's full name in the model.
        skip: names or shell patterns of layers to leave dense, full or from the block on
            ("self_attn.o_proj", "*.layers.0.*").

    Raises:
        UserError: the block is a mixture of experts in a layout that is not known, or holds a
            weight matrix that is no linear layer and that `skip` does not name.
    """
    layers: dict[str, LinearLayer] = {}
    for relative, module in block.named_modules():
        full = f"{name}.{relative}" if relative else name
        if has_experts(module):
            found = expert_matrices(module, full)
        elif relative and is_router(block.get_submodule(relative.rpartition(".")[0]), module):
            found = {}
        elif _is_linear(module):
            found = {full: LinearLayer(full, module)}
        else:
            if relative:
                _refuse_experts(module, full)
            if not _skipped(full, skip):
                _refuse_other_matrices(full, module)
            continue
        for own, layer in found.items():
            if not _skipped(own, skip):
                _check_plain(layer)
                layers[own] = layer
    return layers


def check_layers(blocks: DecoderBlocks, skip: Collection[str] = ()) -> None:
    """Check every block before the first one is pruned, so that no model is left half-pruned.

    Raises:
        UserError: as `linear_layers`, or a pattern of `skip` matches nothing.
    """
    pruned: list[str] = []
    for index, block in enumerate(blocks.modules):
        pruned += linear_layers(block, blocks.name_of(index), skip)
    if any(has_experts(module) for module in blocks.modules.modules()):
        logger.info("the routers, which choose the experts, stay dense")
    modules = dict(blocks.modules.named_modules())
    names = [f"{blocks.name}.{name}" for name in modules if name]
    for name, module in modules.items():
        if has_experts(module):
            names += expert_matrices(module, f"{blocks.name}.{name}")
    for pattern in skip:
        if not any(_matches(name, pattern) for name in names):
            example = f"; a layer's name looks like {pruned[0]}" if pruned else ""
            raise UserError(f"skip: {pattern!r} matches no layer of {blocks.name}{example}")


def _embedding_name(model: PreTrainedModel) -> str:
    embedding = model.get_input_embeddings()
    return next(name for name, module in model.named_modules() if module is embedding)


def _block_lists(model: nn.Module, path: str) -> list[DecoderBlocks]:
    found: list[DecoderBlocks] = []
    for relative, module in model.get_submodule(path).named_modules():
        name = f"{path}.{relative}" if path else relative
        inside = any(name.startswith(f"{blocks.name}.") for blocks in found)
        if not inside and _is_block_list(module):
            assert isinstance(module, nn.ModuleList)
            found.append(DecoderBlocks(name, module))
    return found


def _is_block_list(module: nn.Module) -> bool:
    """A ModuleList of modules that contain linear layers, but are not linear layers themselves."""
    return (
        isinstance(module, nn.ModuleList)
        and len(module) > 0
        and all(
            not _is_linear(member) and any(_is_linear(part) for part in member.modules())
            for member in module
        )
    )


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | Conv1D)


def _check_plain(layer: LinearLayer) -> None:
    weight = layer.stored
    if not weight.is_floating_point() or weight.dim() != 2 or weight.element_size() < 2:
        raise UserError(
            f"{layer.name} ({type(layer.module).__name__}) holds quantised weights, which cannot "
            "be pruned; give the model in float16, bfloat16 or float32"
        )


def _refuse_experts(module: nn.Module, name: str) -> None:
    """Refuse experts in a layout that is not known: they would be left dense."""
    own = f"{name.rpartition('.')[2]} {type(module).__name__}".lower()
    matrices = [p for p in module.parameters(recurse=False) if p.dim() > 2]
    if _is_block_list(module) or ("expert" in own and matrices):
        raise UserError(
            f"{name} ({type(module).__name__}): this layout of a mixture of experts is not "
            "supported; prune a dense model, or one laid out as Mixtral or Qwen3-MoE are"
        )


def _refuse_other_matrices(name: str, module: nn.Module) -> None:
    if "norm" in type(module).__name__.lower():  # some norms keep one row of gains per head
        return
    for parameter_name, parameter in module.named_parameters(recurse=False):
        if parameter.dim() >= 2:
            raise UserError(
                f"{name} ({type(module).__name__}) holds the matrix {parameter_name} "
                f"{tuple(parameter.shape)} and is no linear layer: it would stay dense; "
                "name it in skip if that is wanted"
            )


def _skipped(name: str, skip: Collection[str]) -> bool:
    return any(_matches(name, pattern) for pattern in skip)


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")
