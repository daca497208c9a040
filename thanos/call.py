"""One call: prune a loaded model in place, or a folder's without loading it as a whole."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from .config import Config, RunBuilder, refuse_unused, resolve
from .config.checks import choices_of
from .config.grammar import written
from .config.keys import all_keys
from .config.runs import place_of, pruning_spec
from .data.windows import sample_windows, survey, tokens_hash
from .device import resolve_device, used
from .errors import UserError
from .identity import ModelSpec, PruningSpec, TextSpec
from .identity.fingerprints import fingerprint
from .models import BlocksInMemory, work_folder
from .models.context import longest_window
from .models.parts import timed_parts
from .opening import open_tokenizer, window_length
from .paths import expanded
from .provenance import provenance
from .pruner import check_layers, layer_row, prune_blocks, summary
from .stages import prune as stage
from .stages.calibrate import write_windows

if TYPE_CHECKING:
    import pandas as pd

# Where bare names of options are looked for, in this order.
_HOLDERS = ("", "method.", "model.", "calibration.")
_NOT_HERE = ("model.path", "method.name", "method.label", "output_dir")
# Of where models come from, and of what lies in files: for folders.
_OF_FOLDERS = (
    *("revision", "trust_remote_code", "package", "gguf", "file"),
    *("mirror", "models_dir", "hidden_memory", "overlap"),
)


@dataclass(frozen=True)
class Pruned:
    """A pruned model and how it was pruned.

    Attributes:
        model: the loaded model, pruned in place; None if a folder was pruned.
        checkpoint: the folder that was written; None if a loaded model was pruned.
        record: what `pruning.json` of a run holds: spec, provenance, all layers.
        method: what tables would call the method.
    """

    model: PreTrainedModel | None
    checkpoint: Path | None
    record: dict[str, Any]
    method: str

    @property
    def sparsity(self) -> float:
        """Share of zeros in the pruned layers."""
        return float(self.record["sparsity"])

    @property
    def relative_error(self) -> float | None:
        """Mean of the layers' output errors relative to the dense outputs; None if not recorded."""
        return (
            None if self.record["relative_error"] is None else float(self.record["relative_error"])
        )

    def to_frame(self) -> "pd.DataFrame":
        """One row per layer: block, layer, rows, columns, sparsity, relative_error, seconds, …"""
        import pandas as pd

        rows = []
        for layer in self.record["layers"]:
            row = {key: value for key, value in layer.items() if key not in ("shape", "details")}
            rows.append({**row, "rows": layer["shape"][0], "columns": layer["shape"][1]})
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        error = "" if self.relative_error is None else f", relative error {self.relative_error:.4g}"
        where = "" if self.checkpoint is None else f", checkpoint {str(self.checkpoint)!r}"
        return (
            f"<Pruned {self._what()}: {len(self.record['layers'])} layers, sparsity "
            f"{self.sparsity:.4f}{error}, {self.record['seconds']:.1f} s{where}>"
        )

    def _repr_html_(self) -> str:
        from html import escape

        layers = self.to_frame().drop(columns="seconds")
        table = layers.to_html(index=False, max_rows=12, float_format="{:.4g}".format, border=0)
        return f"<p>{escape(repr(self)[1:-1])}</p>{table}"

    def _what(self) -> str:
        spec = self.record["spec"]
        return f"{Path(spec['model']['path']).name} by {self.method}, {spec['pattern']}"


def prune(
    model: PreTrainedModel | str | Path,
    text: str | Path | Sequence[str] | Tensor | None = None,
    *,
    method: str = "thanos",
    pattern: str | float = "0.5",
    tokenizer: PreTrainedTokenizerBase | None = None,
    output: str | Path | None = None,
    windows: int | None = None,
    context: int | None = None,
    seed: int | None = None,
    device: str = "auto",
    **options: Any,
) -> Pruned:
    """Prune a model after training, by the same code as `python -m thanos` and the suites.

        model = AutoModelForCausalLM.from_pretrained(folder)
        result = prune(model, text, method="thanos", pattern="2:4", tokenizer=tokenizer)
        result.sparsity, result.to_frame()

    Args:
        model: a loaded transformers model, pruned in place in the dtype that it has; or a folder or
            hub id, whose blocks are read, pruned and written to `output` one at a time.
        text: to calibrate on: a text, several, a file (`pathlib.Path`), or (n, T) int64 token ids.
            Not needed by methods that look at weights alone.
        method: an option of `conf/method`: thanos, sparsegpt, wanda, magnitude, thanos-refined.
        pattern: 0.5 or "unstructured:0.5", "2:4", "structured:0.3".
        tokenizer: of a loaded model, for texts; default: the one where the model was loaded from.
        output: the checkpoint folder to write if `model` is a folder; it must not exist.
        windows: how many are drawn of a text; default: 128.
        context: tokens per window, capped by what the model supports; default: 2048.
        seed: of the draw; default: 0.
        device: where blocks are pruned; `auto`: where a loaded model lies, else a GPU if any.
        options: other keys of the configuration without their group: block_size, damping,
            outlier_fraction, refine_steps, layer_errors, skip, memory_budget, batch_size, …

    Returns:
        The record, also as a data frame, and the model or the folder.

    Raises:
        UserError: an option that does not exist or that the method does not use; a text that is
            missing or shorter than a window; a layer that cannot have the pattern. A loaded model
            is checked before the first layer changes.
    """
    drawn = {"windows": windows, "context": context, "seed": seed}
    given = {**{key: value for key, value in drawn.items() if value is not None}, **options}
    asked = set(given)
    if isinstance(text, Tensor):
        if useless := sorted(drawn.keys() & asked):
            raise UserError(f"{useless[0]} is for texts; token ids are taken as they are")
        given |= dict(zip(("windows", "context"), _checked_ids(text).shape, strict=True))
    if text is None:
        given.setdefault("layer_errors", False)
    given |= {"pattern": pattern, "device": device}
    config = _configuration(model, method, given, asked)
    if isinstance(model, PreTrainedModel):
        if output is not None:
            raise UserError("output is for folders; a loaded model has save_pretrained")
        if useless := sorted(asked.intersection(_OF_FOLDERS)):
            raise UserError(f"{useless[0]} is for folders; the model is loaded already")
        return _prune_loaded(config, model, text, tokenizer)
    return _prune_folder(config, text, tokenizer, output)


def _configuration(
    model: PreTrainedModel | str | Path, method: str, given: dict[str, Any], asked: set[str]
) -> Config:
    path = model.name_or_path if isinstance(model, PreTrainedModel) else str(model)
    overrides = ["model=hf", written("model.path", path or type(model).__name__)]
    overrides += [written("method", method), "calibration.windows=128"]
    named = {name: written(_key(name), _typed(value)) for name, value in given.items()}
    config = resolve([*overrides, *named.values()])
    refuse_unused(config, [named[name] for name in asked])
    if config.dense:
        raise UserError("method 'dense' prunes nothing")
    return config


def _key(name: str) -> str:
    keys = all_keys()
    found = [h + name for h in _HOLDERS if h + name in keys and not keys[h + name].is_group]
    if not found or found[0] in _NOT_HERE:
        raise UserError(f"unknown option {name!r}; see the keys in python -m thanos --help")
    return found[0]


def _typed(value: Any) -> str | list[str] | None:
    """A Python value as it would be typed."""
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return [str(item) for item in value]
    return str(value)


def _prune_loaded(
    config: Config,
    model: PreTrainedModel,
    text: str | Path | Sequence[str] | Tensor | None,
    tokenizer: PreTrainedTokenizerBase | None,
) -> Pruned:
    began = time.time()
    if len(set(getattr(model, "hf_device_map", {}).values())) > 1:
        raise UserError("the model is spread over devices; load it on one, or prune its folder")
    place = place_of(config)
    where = model.device if place.device == "auto" else resolve_device(place.device)
    spec = _spec(config, ModelSpec(config.model.path, description="loaded", weights="loaded"), text)
    limit = longest_window(model.config.get_text_config(decoder=True))
    length = min(config.model.context, limit or config.model.context)
    tokens, drawn = _tokens(spec, text, length, lambda: tokenizer or _tokenizer_of(model))
    source = BlocksInMemory(model)
    check_layers(spec, source)
    found, training = fingerprint(spec, place), model.training
    try:
        model.eval()
        with timed_parts(where) as seconds:
            layers = prune_blocks(
                *(spec, place, source, tokens, source), device=where, storage_dtype=model.dtype
            )
    finally:
        model.train(training)
    record = {
        **summary(layers),
        "seconds": sum(seconds.values()),
        "seconds_by_part": seconds,
        "layers": [layer_row(layer) for layer in layers],
        "spec": spec.to_json(),
        "calibration": drawn,
        "provenance": provenance(began, found, place=place, used=used(where, model.dtype)),
    }
    return Pruned(model, None, record, config.method.label)


def _prune_folder(
    config: Config,
    text: str | Path | Sequence[str] | Tensor | None,
    tokenizer: PreTrainedTokenizerBase | None,
    output: str | Path | None,
) -> Pruned:
    if output is None:
        raise UserError(
            "output must be given: the checkpoint folder to write, which must not exist"
        )
    checkpoint = expanded(output)
    if checkpoint.exists():
        raise UserError(f"output {checkpoint} exists already; give another or remove it")
    model, place = RunBuilder().model(config.model), place_of(config)
    spec = _spec(config, model, text)
    length = window_length(model, config.model.context, place)
    tokens, drawn = _tokens(spec, text, length, lambda: tokenizer or open_tokenizer(model, place))
    with work_folder(checkpoint.with_name(f"{checkpoint.name}.partial")) as work:
        calibration = None
        if tokens is not None:
            calibration = work / "calibration"
            facts = {"spec": spec.calibration.to_json() if spec.calibration else None, **drawn}
            write_windows(tokens, facts, calibration)
        record = stage.prune(spec, place, calibration, checkpoint, work)
    return Pruned(None, checkpoint, record, config.method.label)


def _spec(config: Config, model: ModelSpec, text: Any) -> PruningSpec:
    choices = choices_of(config)
    if not choices.calibrated:
        return pruning_spec(choices, model, None)
    if text is None:
        raise UserError(f"{choices.pruning} calibrates: give a text, several, a file, or token ids")
    return pruning_spec(choices, model, TextSpec("given"))


def _tokens(
    spec: PruningSpec, text: Any, length: int, tokenizer: Any
) -> tuple[Tensor | None, dict[str, Any]]:
    """Windows, (n, T) int64, and the hashes of what they were drawn from."""
    if spec.calibration is None:
        return None, {}
    if isinstance(text, Tensor):
        tokens, corpus = _checked_ids(text), None
    else:
        documents = _documents(text)
        count, seed = spec.calibration.windows, spec.calibration.seed
        bos = spec.calibration.add_bos
        tokens = sample_windows(
            documents, tokenizer(), count, length, seed, add_bos=bos, source="text"
        )
        corpus = survey(documents).sha256
    return tokens, {"corpus_sha256": corpus, "tokens_sha256": tokens_hash(tokens)}


def _checked_ids(ids: Tensor) -> Tensor:
    if ids.dim() != 2 or ids.is_floating_point() or not ids.numel():
        raise UserError("token ids must be a tensor of integers, (windows, tokens)")
    return ids.to("cpu", torch.int64)


def _documents(text: str | Path | Sequence[str]) -> list[str]:
    if isinstance(text, Path):
        from .data.files import read_text

        return [read_text(expanded(text))]
    return [text] if isinstance(text, str) else list(text)


def _tokenizer_of(model: PreTrainedModel) -> PreTrainedTokenizerBase:
    try:
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(model.name_or_path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"no tokenizer where the model came from ({model.name_or_path!r}); give tokenizer=…"
        ) from error
    return found
