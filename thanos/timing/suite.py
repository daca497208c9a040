"""What the timing suite measures: `conf/timing`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from thanos.errors import UserError


@dataclass
class TimingGrid:
    """Layers to prune: every shape with every pattern and block size, by all methods in turn."""

    shapes: list[str] = MISSING  # rows x columns, such as 4096x11008
    patterns: list[str] = MISSING
    methods: list[str] = MISSING
    block_sizes: list[int | None] = field(default_factory=lambda: [None])  # None: the default


@dataclass
class RandomModel:
    """A checkpoint of random weights in half precision: only its shapes matter for speed."""

    family: str = MISSING  # llama or opt
    hidden: int = MISSING
    layers: int = MISSING  # decoder blocks
    context: int = MISSING  # tokens of a window


@dataclass
class TimingSuite:
    """Where and how often is measured, and what: layers, or whole prunings of models.

    A whole pruning is overrides of a run, after those that all of them have in `common`; it is
    timed by the code as it is and by that of every git revision in `revisions`, in turn. With
    `random` the model is that one.
    """

    grids: list[TimingGrid] = field(default_factory=list)
    prunings: list[list[str]] = field(default_factory=list)
    common: list[str] = field(default_factory=list)
    random: RandomModel | None = None
    revisions: list[str] = field(default_factory=list)
    device: str = "cpu"
    threads: int | None = None  # of the CPU; default: PyTorch's
    repeats: int = 5
    patience: float = 30.0  # seconds after which a slow call is not repeated any more


def load_timing(file: Path, overrides: Sequence[str] = ()) -> TimingSuite:
    """Read a timing suite; `overrides` such as `threads=2` replace its values.

    Raises:
        UserError: if the file is missing or does not fit the schema.
    """
    if not file.is_file():
        raise UserError(f"timing suite {file} does not exist")
    try:
        given = OmegaConf.merge(OmegaConf.load(file), OmegaConf.from_dotlist(list(overrides)))
        suite = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TimingSuite), given))
    except OmegaConfBaseException as error:
        raise UserError(f"timing suite {file}: {str(error).splitlines()[0]}") from error
    assert isinstance(suite, TimingSuite)
    if not suite.grids and not suite.prunings:
        raise UserError(f"timing suite {file} has neither grids nor prunings")
    for key, value in (("repeats", suite.repeats), ("threads", suite.threads)):
        if value is not None and value < 1:
            raise UserError(f"timing suite {file}: {key} is {value}; it must be at least 1")
    return suite


def parse_shape(text: str) -> tuple[int, int]:
    """(rows, columns) from `4096x11008`.

    Raises:
        UserError: for another form.
    """
    if not (match := re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)):
        raise UserError(f"shape {text!r}: expected rows x columns such as 4096x11008")
    return int(match[1]), int(match[2])
