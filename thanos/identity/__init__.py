"""What a result is of: specs, whose hashes name the folders, and fingerprints of what they name."""

from .place import Place
from .spec import Spec
from .specs import (
    CalibrationSpec,
    EvaluationSpec,
    LatencySpec,
    ModelSpec,
    PruningSpec,
    RecoverySpec,
    TextSpec,
    WindowsSpec,
)

__all__ = [
    "CalibrationSpec",
    "EvaluationSpec",
    "LatencySpec",
    "ModelSpec",
    "Place",
    "PruningSpec",
    "RecoverySpec",
    "Spec",
    "TextSpec",
    "WindowsSpec",
]
