"""Four things are made, each of exactly its spec: tokens, pruned models, windows, evaluations.

A spec is plain, frozen data. The hash of its identity names the folder of what is made of it, so
that the same thing in two suites is one thing. Paths are no part of an identity: a file is what it
holds, wherever it lies, and a model on the hub is its id and revision. Labels are none either.
"""

import dataclasses
import hashlib
import json
import re
import types
import typing
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from ..artifacts import read_json
from ..errors import UserError
from ..pruning.composition import METHODS, Method, compose
from ..pruning.patterns import Pattern, Unstructured, parse_pattern

# Of a folder's name: what it is, readable, and twelve digits of the identity's hash.
ID = r"[A-Za-z0-9][A-Za-z0-9._-]*-[0-9a-f]{12}"
DENSE = "dense"

AnySpec = TypeVar("AnySpec", bound="Spec")


@dataclass(frozen=True)
class Spec:
    """What one thing is of."""

    def identity(self) -> dict[str, Any]:
        """JSON values that distinguish this thing from all others of its kind."""
        return {name: _identity(value) for name, value in self._values()}

    @property
    def readable(self) -> str:
        """The part of the folder's name that people read."""
        raise NotImplementedError

    @cached_property
    def id(self) -> str:
        """The name of the folder of what is made of this spec."""
        return f"{slug(self.readable)}-{digest(self.identity())}"

    def to_json(self) -> dict[str, Any]:
        """The whole spec, paths included, as JSON values; `read_spec` reads it."""
        return {name: _plain(value) for name, value in self._values()}

    def _values(self) -> list[tuple[str, Any]]:
        return [(field.name, getattr(self, field.name)) for field in dataclasses.fields(self)]


@dataclass(frozen=True)
class ModelSpec(Spec):
    """A model as it is stored.

    Attributes:
        path: a folder, or an id on the hub.
        revision: branch, tag or commit on the hub.
        trust_remote_code: whether the model's own Python files run.
        weights: hash of the folder's weights; None on the hub.
        description: hash of its configuration, tokenizer and own code; None on the hub.
    """

    path: str
    revision: str | None = None
    trust_remote_code: bool = False
    weights: str | None = None
    description: str | None = None

    @property
    def on_hub(self) -> bool:
        """Whether the model is looked up on the hub, or in the mirror that takes its place."""
        return self.description is None

    @property
    def readable(self) -> str:
        return DENSE

    def identity(self) -> dict[str, Any]:
        """The contents of a folder, or what names a model on the hub."""
        return {**self.tokenizer(), **({} if self.on_hub else {"weights": self.weights})}

    def tokenizer(self) -> dict[str, Any]:
        """What token ids depend on; the configuration says how long a window may be."""
        values: dict[str, Any] = {"description": self.description}
        if self.on_hub:
            values = {"path": self.path, "revision": self.revision or "main"}
        return {**values, **({"trust_remote_code": True} if self.trust_remote_code else {})}


@dataclass(frozen=True)
class TextSpec(Spec):
    """A source of text, see `thanos.data.sources`.

    Attributes:
        source: its name.
        path: the file to read in place of what the source reads by itself.
        content: hash of that file.
    """

    source: str
    path: str | None = None
    content: str | None = None

    @property
    def readable(self) -> str:
        return self.source

    def identity(self) -> dict[str, Any]:
        """The source, and what its file holds; the file's endings say how it is read."""
        if self.path is None:
            return {"source": self.source}
        endings = "".join(Path(self.path).suffixes[-2:])
        return {"source": self.source, "content": self.content, "endings": endings}


@dataclass(frozen=True)
class CalibrationSpec(Spec):
    """Calibration tokens: windows drawn at random from a source.

    Attributes:
        model: whose tokenizer cuts them; its weights do not matter.
        text: the source.
        windows: how many.
        context: tokens per window, capped by what the model supports.
        seed: of the draw.
    """

    model: ModelSpec
    text: TextSpec
    windows: int
    context: int
    seed: int

    @property
    def readable(self) -> str:
        return self.text.source

    def identity(self) -> dict[str, Any]:
        """Tokenizer, source and draw."""
        return {**super().identity(), "model": self.model.tokenizer()}


@dataclass(frozen=True)
class WindowsSpec(Spec):
    """Evaluation windows: a corpus cut from its beginning.

    Attributes:
        model: whose tokenizer cuts them; its weights do not matter.
        text: the corpus.
        context: tokens per window, capped by what the model supports.
        max_windows: how many at the most; None: all, or what the corpus' protocol says.
    """

    model: ModelSpec
    text: TextSpec
    context: int
    max_windows: int | None

    @property
    def readable(self) -> str:
        """The corpus' name."""
        return self.text.source

    def identity(self) -> dict[str, Any]:
        """Tokenizer, corpus, length and number."""
        return {**super().identity(), "model": self.model.tokenizer()}


@dataclass(frozen=True)
class PruningSpec(Spec):
    """A pruned model. What its choices do not use is None; see `thanos.config.usage`.

    Attributes:
        model: to prune.
        calibration: its tokens; None if neither the method nor the record needs them.
        method: metric × scope × update, whatever it is called.
        pattern: parsed.
        outlier_fraction: α.
        outlier_score: how outlier rows are ranked; None without any.
        block_size: B.
        damping: λ.
        refine_steps: conjugate gradient steps after pruning.
        precision: float32 or float64, of the pruning mathematics.
        layer_errors: whether every layer's relative error is recorded.
        skip: layers left dense on purpose.
        rare_experts: what to do with experts that saw too few tokens.
    """

    model: ModelSpec
    calibration: CalibrationSpec | None
    method: Method
    pattern: Pattern
    outlier_fraction: float = 0.0
    outlier_score: str | None = None
    block_size: int | None = None
    damping: float | None = None
    refine_steps: int = 0
    precision: str = "float32"
    layer_errors: bool = True
    skip: tuple[str, ...] = ()
    rare_experts: str = "error"

    @property
    def readable(self) -> str:
        """The method, by its name if it has one, and the pattern."""
        chosen = self._choices()
        named = (n for n in METHODS if self._choices(compose(n, self.pattern)) == chosen)
        return f"{next(named, '-'.join(filter(None, chosen)))}-{self.pattern}"

    def identity(self) -> dict[str, Any]:
        """All that the pruned weights and their record are of."""
        return {**super().identity(), "method": self._choices()}

    def _choices(self, method: Method | None = None) -> list[str | None]:
        """Metric, scope and update; no scope where the pattern leaves no choice."""
        method = method or self.method
        scope = method.scope if isinstance(self.pattern, Unstructured) else None
        return [method.metric, scope, method.update]


@dataclass(frozen=True)
class EvaluationSpec(Spec):
    """What is measured of one model. Each part is an evaluation by itself and measured once.

    Attributes:
        model: pruned, or as it is stored.
        windows: of every corpus whose perplexity is wanted.
        tasks: zero-shot tasks.
        limit: questions per task; None: all.
        quantization: of the linear layers' weights: none, int8 or int4.
    """

    model: PruningSpec | ModelSpec
    windows: tuple[WindowsSpec, ...] = ()
    tasks: tuple[str, ...] = ()
    limit: int | None = None
    quantization: str = "none"

    @property
    def pruning(self) -> PruningSpec | None:
        """How the model was pruned; None for one as it is stored."""
        return self.model if isinstance(self.model, PruningSpec) else None

    @property
    def base(self) -> ModelSpec:
        """The model as it is stored, before any pruning."""
        return self.model.model if isinstance(self.model, PruningSpec) else self.model

    @property
    def readable(self) -> str:
        """What is measured if that is one thing, otherwise the model's."""
        single = [*(windows.readable for windows in self.windows), *self.tasks]
        return single[0] if len(single) == 1 else self.model.readable

    def parts(self) -> tuple["EvaluationSpec", ...]:
        """Each corpus and each task on its own; last the size, which is of the weights alone."""
        part = partial(EvaluationSpec, self.model, quantization=self.quantization)
        corpora = [part(windows=(windows,)) for windows in self.windows]
        tasks = [part(tasks=(task,), limit=self.limit) for task in self.tasks]
        return (*corpora, *tasks, EvaluationSpec(self.model))


@dataclass(frozen=True)
class LatencySpec(Spec):
    """The latency of a pruned model beside the dense one.

    Attributes:
        pruning: of the model.
        context: tokens of the forward pass, capped by what the model supports.
    """

    pruning: PruningSpec
    context: int

    @property
    def readable(self) -> str:
        return self.pruning.readable


def read_spec(kind: type[AnySpec], text: str) -> AnySpec:
    """Read a command's spec: JSON, or a result that was made of it, whose `spec` is read.

    Raises:
        UserError: it is neither, or a result that is damaged.
    """
    try:
        inline = text.lstrip().startswith("{")
        values = json.loads(text if inline else Path(text).read_text(encoding="utf-8"))
        if not inline:
            values = read_json(Path(text))  # the same, if it is not damaged
        spec: AnySpec = _parsed(kind, values.get("spec", values))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{text[:80]} is no {kind.__name__} ({type(error).__name__}: {error}); give its JSON, "
            "or a file with it under the key spec"
        ) from error
    return spec


def digest(values: Any) -> str:
    """Twelve hexadecimal digits that identify JSON values, whatever the order of the keys."""
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def slug(text: str) -> str:
    """A text as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.") or "unnamed"


def _identity(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.id
    return [_identity(item) for item in value] if isinstance(value, tuple) else _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.to_json()
    if isinstance(value, Pattern):
        return str(value)
    if isinstance(value, Method):
        return dataclasses.asdict(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _parsed(kind: Any, value: Any) -> Any:
    """The inverse of `_plain`, by the type that a field has."""
    if kind is Pattern:
        return parse_pattern(value)
    if isinstance(kind, types.UnionType):  # the first that has all of the value's keys
        known = [one for one in typing.get_args(kind) if dataclasses.is_dataclass(one)]
        for one in known if isinstance(value, dict) else ():
            if value.keys() <= {field.name for field in dataclasses.fields(one)}:
                return _parsed(one, value)
        return value
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        given = {name: _parsed(hints[name], item) for name, item in value.items()}
        return typing.cast(Any, kind)(**given)
    if typing.get_origin(kind) is tuple:
        return tuple(_parsed(typing.get_args(kind)[0], item) for item in value)
    return value
