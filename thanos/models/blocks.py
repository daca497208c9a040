"""Find a model's decoder blocks and their linear layers by structure, never by the model's name."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from thanos.errors import UserError

from .dense import is_convolution_by_channel, is_skipped, matches, refuse
from .experts import expert_matrices, has_experts, is_router, parameter_of
from .linear import LinearLayer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DecoderBlocks:
    """The repeated blocks of a decoder and where they hang in the model."""

    name: str  # such as "model.layers"
    modules: nn.ModuleList
    # Parameters that are one with a parameter of another block, which comes with them.
    shared: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.modules)

    def name_of(self, index: int) -> str:
        """Return the full name of block `index`, such as "model.layers.3"."""
        return f"{self.name}.{index}"

    @property
    def names(self) -> list[str]:
        """The full names of all blocks."""
        return [self.name_of(index) for index in range(len(self))]


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
            (only,) = found
            return DecoderBlocks(only.name, only.modules, _shared(model, only.names))
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

    Routers and gates, which choose who computes, are left out: they stay dense.

    Raises:
        UserError: the block is a mixture of experts in a layout that is not known.
    """
    layers: dict[str, LinearLayer] = {}
    for relative, module in block.named_modules():
        full = f"{name}.{relative}" if relative else name
        found: dict[str, LinearLayer] = {}
        if has_experts(module):
            found = expert_matrices(module, full)
        elif relative and _chooses(block, relative, module):
            continue
        elif _is_linear(module):
            found = {full: LinearLayer(full, module)}
        elif relative:
            _refuse_experts(module, full)
        for own, layer in found.items():
            if not is_skipped(own, skip):
                _check_plain(layer)
                layers[own] = layer
    return layers


def check_layers(blocks: DecoderBlocks, skip: Collection[str] = ()) -> None:
    """Check every block before the first one is pruned, so that no model is left half-pruned.

    Raises:
        UserError: as `linear_layers`; a pattern of `skip` matches nothing; or, and `skip` does not
            name it, a weight matrix is no linear layer, or a linear layer is one with another
            block's.
    """
    pruned: dict[str, LinearLayer] = {}
    faults: dict[str, str] = {}
    dense: set[str] = set()
    for block, name in zip(blocks.modules, blocks.names, strict=True):
        layers = linear_layers(block, name, skip)
        pruned |= layers
        for relative, module in block.named_modules():
            full = f"{name}.{relative}" if relative else name
            chooses = bool(relative) and _chooses(block, relative, module)
            if chooses or is_convolution_by_channel(module):
                dense.add(relative)
            elif (matrix := _other_matrix(module)) and not is_skipped(full, skip):
                faults[full] = f" ({type(module).__name__}) holds {matrix}"
        for own, layer in layers.items():
            parameter = f"{own}.weight" if _is_linear(layer.module) else parameter_of(own)
            if parameter in blocks.shared:
                faults[own] = f" is one with {blocks.shared[parameter]} of another block"
    if dense:
        names = ", ".join(sorted(dense))
        logger.info("routers, gates and convolutions by channel stay dense: %s", names)
    refuse(faults, blocks.names, skip)
    _check_used(blocks, skip, pruned)


def _check_used(blocks: DecoderBlocks, skip: Collection[str], pruned: Collection[str]) -> None:
    """Refuse a pattern of `skip` that matches nothing."""
    modules = dict(blocks.modules.named_modules())
    names = [f"{blocks.name}.{name}" for name in modules if name]
    for name, module in modules.items():
        if has_experts(module):
            names += expert_matrices(module, f"{blocks.name}.{name}")
    for pattern in skip:
        if not any(matches(name, pattern) for name in names):
            example = f"; a layer's name looks like {next(iter(pruned))}" if pruned else ""
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


def _other_matrix(module: nn.Module) -> str | None:
    """The matrix of a module that is no linear layer and would stay dense unnoticed."""
    if _is_linear(module) or has_experts(module) or "norm" in type(module).__name__.lower():
        return None  # some norms keep one row of gains per head
    for name, parameter in module.named_parameters(recurse=False):
        if parameter.dim() >= 2:
            return f"the matrix {name} {tuple(parameter.shape)} and is no linear layer"
    return None


def _chooses(block: nn.Module, relative: str, module: nn.Module) -> bool:
    """Whether a part of a block only chooses who computes: it scores experts, or is one gate."""
    if is_router(block.get_submodule(relative.rpartition(".")[0]), module):
        return True
    return _is_linear(module) and LinearLayer(relative, module).shape[0] == 1


def _shared(model: PreTrainedModel, names: list[str]) -> dict[str, str]:
    """Parameters of blocks that are one with a parameter of another block."""

    def block(parameter: str) -> str | None:
        return next((name for name in names if parameter.startswith(f"{name}.")), None)

    groups: dict[int | str, list[str]] = {}
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    for name, source in tied.items():
        groups.setdefault(source, [source]).append(name)
    found = {}
    for group in groups.values():
        inside = {name: own for name in group if (own := block(name)) is not None}
        for name, own in inside.items():
            others = [other for other, its in inside.items() if its != own]
            if others:
                found[name] = others[0]
    return found
