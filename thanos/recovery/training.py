"""The training itself: transformers' Trainer on windows of tokens, one after the other.

What of it the zeros need, and what lets it go on after a kill, are callbacks. A checkpoint of the
Trainer counts when its manifest, written last, has the hashes of its files; it is of the same
training when the manifest has the same causes. Only such a one is read, and nothing of it is
unpickled but tensors and plain containers (`torch.load(weights_only=True)`, by the Trainer).
"""

import logging
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (as everywhere)
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.utils import is_torch_bf16_gpu_available

from thanos.accelerator import is_accelerator
from thanos.artifacts import verify_manifest, write_manifest
from thanos.errors import UserError
from thanos.models.quiet import quiet

logger = logging.getLogger(__name__)

WARM_UP = 0.1  # share of the steps over which the learning rate rises; then it falls as a cosine
_SAVE_SECONDS = 180.0  # of work that a kill may cost, at the most
_NUMBER = len("checkpoint-")  # how the Trainer calls its folders


@dataclass(frozen=True)
class Course:
    """How a model is trained.

    Attributes:
        steps: of AdamW, without weight decay; gradients are clipped to norm 1.
        learning_rate: the largest.
        batch_size: windows per step.
        forward_batch: windows per forward pass; divides `batch_size`.
        seed: of dropout, where the model has any.
    """

    steps: int
    learning_rate: float
    batch_size: int
    forward_batch: int
    seed: int


class Student(nn.Module):
    """A model and its loss: of the next token, and how far its predictions are from a teacher's.

    Args:
        model: to train.
        teacher: the dense model, for the second term; KL(teacher ‖ student), nats per token.
        weight: of that term.
    """

    def __init__(self, model: nn.Module, teacher: PreTrainedModel | None, weight: float) -> None:
        super().__init__()
        self.model = model
        self.teacher = teacher
        self.weight = weight

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        """The loss of windows (n, T)."""
        found = self.model(input_ids=input_ids, labels=input_ids, use_cache=False)
        loss: Tensor = found.loss
        if self.teacher is not None:
            with torch.no_grad():
                wanted = self.teacher(input_ids=input_ids, use_cache=False).logits
            divergence = F.kl_div(
                found.logits.flatten(0, 1).float().log_softmax(-1),
                wanted.flatten(0, 1).float().log_softmax(-1),
                reduction="batchmean",
                log_target=True,
            )
            loss = loss + self.weight * divergence
        return {"loss": loss}

    def train(self, mode: bool = True) -> "Student":
        """The teacher never trains: it has no dropout."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """What is trained, each tensor once: all that a checkpoint needs."""
        return {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The inverse of `state_dict`: what is not trained is there already."""
        if different := state_dict.keys() ^ self.state_dict().keys():
            raise RuntimeError(f"{min(different)} is not trained, or not in the checkpoint")
        found = super().load_state_dict(state_dict, strict=False)
        found.missing_keys.clear()
        return found


def in_half_precision(device: torch.device) -> bool:
    """Whether products are computed in bfloat16, as autocast does."""
    return is_accelerator(device) and is_torch_bf16_gpu_available()


def train(
    student: Student,
    windows: Tensor,
    course: Course,
    folder: Path,
    causes: Mapping[str, Any],
    *,
    device: torch.device,
    after_step: Callable[[], None] | None,
) -> tuple[list[float], int]:
    """Train a model in place.

    Args:
        student: with the model, on the device.
        windows: (steps · batch_size, T) token ids, taken in their order.
        course: how.
        folder: where checkpoints lie until the training is over; those of an earlier attempt that
            was killed are gone on from.
        causes: all that the training depends on, as JSON values; checkpoints of others are removed.
        device: to train on.
        after_step: called after every step of the optimizer, if there is anything to call.

    Returns:
        The loss of every step, and the step from which it went on.

    Raises:
        UserError: the loss is not finite, or the device is not the first of its kind.
    """
    if device.index:  # the Trainer knows but the first one
        raise UserError(
            f"device {device}: a recovery takes the first that it sees; give "
            f"device={device.type} and hide the others (CUDA_VISIBLE_DEVICES={device.index}, say)"
        )
    os.environ["ACCELERATE_TORCH_DEVICE"] = str(device)  # of kinds that the Trainer knows not
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=course.steps,
        per_device_train_batch_size=course.forward_batch,
        gradient_accumulation_steps=course.batch_size // course.forward_batch,
        learning_rate=course.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(WARM_UP * course.steps),
        max_grad_norm=1.0,
        weight_decay=0.0,
        seed=course.seed,
        bf16=in_half_precision(device),
        use_cpu=not is_accelerator(device),
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",  # by time instead
        save_total_limit=2,  # the newest may not be whole
        report_to="none",
        disable_tqdm=not sys.stderr.isatty(),
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # or the batches would be spread over all of them
    resumed = _newest(folder, causes)
    with quiet():
        trainer = Trainer(
            student,
            arguments,
            train_dataset=[{"input_ids": window} for window in windows],
            callbacks=[_Watch(causes, after_step)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return losses, 0 if resumed is None else int(resumed.name[_NUMBER:])


class _Watch(TrainerCallback):
    """Keeps zeros and checkpoints, and stops what diverges."""

    def __init__(self, causes: Mapping[str, Any], after_step: Callable[[], None] | None) -> None:
        self._causes = dict(causes)
        self._after_step = after_step
        self._saved = time.monotonic()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._after_step is not None:
            self._after_step()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        late = time.monotonic() - self._saved > _SAVE_SECONDS
        control.should_save = late and state.global_step < state.max_steps

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        write_manifest(
            Path(args.output_dir) / f"checkpoint-{state.global_step}", {"causes": self._causes}
        )
        self._saved = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        loss = logs.get("loss")
        if loss is None:
            return
        if not math.isfinite(loss):
            raise UserError(
                f"recovery: the loss of step {state.global_step} is {loss}; lower "
                "recovery.learning_rate"
            )
        logger.info("step %d of %d: loss %.4f", state.global_step, state.max_steps, loss)


def _newest(folder: Path, causes: Mapping[str, Any]) -> Path | None:
    """The last whole checkpoint of this very training; all others are removed."""
    found = [file for file in folder.glob("checkpoint-*") if file.name[_NUMBER:].isdigit()]
    for checkpoint in sorted(found, key=lambda path: -int(path.name[_NUMBER:])):
        try:
            before = verify_manifest(checkpoint, "recovery", anew=True)["causes"]
            names = [key for key in {**before, **causes} if before.get(key) != causes.get(key)]
            fault = f"it is of another training ({', '.join(names)} changed)" if names else ""
        except UserError as error:
            fault = str(error)
        if not fault:
            logger.info("going on from %s", checkpoint)
            return checkpoint
        logger.warning("%s is not used: %s", checkpoint, fault)
        shutil.rmtree(checkpoint)
    return None
