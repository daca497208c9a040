"""What a result is of: specs, whose hashes name the folders, and fingerprints of what they name."""

from .inputs import CalibrationSpec, ModelSpec, TextSpec, WindowsSpec
from .place import Place
from .spec import Spec
from .specs import EvaluationSpec, LatencySpec, PruningSpec, RecoverySpec

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
