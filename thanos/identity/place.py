"""How and where a thing is computed: what goes with a command and never into an identity."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from ..errors import UserError

# Where no batch size is given: enough for products of matrices at their full rate, and few enough
# for what lies between the products to stay near the processor.
_TOKENS_PER_PASS = 4096


@dataclass(frozen=True)
class Place:
    """The circumstances of a stage. None of them says what is computed.

    Attributes:
        device: `auto`, `cpu` or an accelerator: `cuda`, `cuda:1`, `xpu`, `mps`.
        mirror: folder that takes the hub's place.
        models_dir: folder of models that are stored in GGUF files, as safetensors.
        model_file: wheel or GGUF file that takes the package index's place.
        memory_budget: bytes of temporaries while a layer is pruned; None: from what is free.
        hidden_memory: GiB of hidden states in memory; more lie in mapped files. Corrections keep
            what layers get in the dense model in what is left.
        overlap: read the next block, and write the last one, while one is pruned.
        calibration_batch: windows per forward pass of the calibration; None: by their length.
        recovery_batch: windows per forward pass of the training; None: those of a step.
        evaluation_batch: windows per forward pass of a perplexity; None: by their length.
        task_batch: requests per forward pass of a zero-shot task.
    """

    device: str = "auto"
    mirror: str | None = None
    models_dir: str = "results/models"
    model_file: str | None = None
    memory_budget: int | None = None
    hidden_memory: float = 8.0
    overlap: bool = True
    calibration_batch: int | None = None
    recovery_batch: int | None = None
    evaluation_batch: int | None = None
    task_batch: int = 32

    @property
    def hidden_budget(self) -> int:
        """Bytes of hidden states to keep in memory."""
        return int(self.hidden_memory * 2**30)

    def calibration_windows(self, context: int) -> int:
        """How many windows of so many tokens go through the model at once in a calibration."""
        return self.calibration_batch or _windows_per_pass(context)

    def evaluation_windows(self, context: int) -> int:
        """How many windows of so many tokens go through the model at once for a perplexity."""
        return self.evaluation_batch or _windows_per_pass(context)

    def to_json(self) -> dict[str, Any]:
        """What differs from the defaults."""
        return {
            field.name: value
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) != field.default
        }

    @staticmethod
    def parse(text: str) -> "Place":
        """Read a command's `--place`: a JSON object with some of the attributes.

        Raises:
            UserError: it is no JSON, or has another key.
        """
        try:
            return Place(**json.loads(text))
        except (ValueError, TypeError) as error:
            known = ", ".join(field.name for field in dataclasses.fields(Place))
            raise UserError(
                f"--place {text!r}: {error}; expected a JSON object with keys of {known}"
            ) from error


def _windows_per_pass(context: int) -> int:
    return max(1, _TOKENS_PER_PASS // max(1, context))
