"""What tables of results say of a run's configuration."""

from typing import Any

from ..identity import PruningSpec, RecoverySpec
from ..identity.inputs import DENSE
from .schema import Config


def columns_of(
    config: Config, pruning: PruningSpec | None, recovery: RecoverySpec | None
) -> dict[str, Any]:
    """The columns of a table of results that come from the configuration; empty where unused."""
    calibration = pruning and pruning.calibration
    drawn = calibration or (recovery and recovery.text)
    pattern = pruning and pruning.pattern
    return {
        "model": config.model.name,
        "label": config.method.label,
        "calibration": config.calibration.name if calibration else "none",
        "method": config.method.name,
        "pattern": str(pattern) if pattern else DENSE,
        "outlier_fraction": pruning.outlier_fraction if pruning else 0.0,
        "outlier_score": pruning and pruning.outlier_score,
        "seed": drawn.seed if drawn else 0,
        "nominal_sparsity": pattern.sparsity if pattern else 0.0,
        "evaluation": config.evaluation.name,
        "quantization": config.evaluation.quantization,
        "model_path": config.model.path,
        "add_bos": int(config.model.add_bos),
        "calibration_source": calibration.text.source if calibration else "none",
        "calibration_windows": calibration.windows if calibration else None,
        "block_size": pruning and pruning.block_size,
        "damping": pruning and pruning.damping,
        "refine_steps": pruning.refine_steps if pruning else 0,
        "iterations": pruning and pruning.iterations,
        "penalty": pruning and pruning.penalty,
        "schedule": pruning and pruning.schedule,
        "order": pruning.order if pruning and pruning.order != "block" else None,
        "correction": pruning.correction if pruning else 0.0,
        "mask": pruning.mask.id if pruning and pruning.mask else None,
        "channel_permutation": int(pruning.channel_permutation) if pruning else 0,
        "allocation": pruning.allocation if pruning and pruning.allocation_unit else None,
        "allocation_spread": pruning and pruning.allocation_spread,
        "allocation_unit": pruning and pruning.allocation_unit,
        "reconstruction_steps": pruning.reconstruction_steps if pruning else 0,
        "reconstruction_rate": pruning and pruning.reconstruction_rate,
        "reconstruction_batch": pruning and pruning.reconstruction_batch,
        "reconstruction_precision": (
            pruning.reconstruction_precision if pruning and pruning.reconstruction_steps else None
        ),
        "mask_metric": pruning and pruning.metric,
        "mask_scope": pruning and pruning.scope,
        "mask_update": pruning and pruning.method.update,
        "recovery": config.recovery.name if recovery else None,
        "recovery_steps": recovery and recovery.steps,
        "learning_rate": recovery and recovery.learning_rate,
        "distillation": recovery and recovery.distillation,
    }
