"""Pruned blocks on disk: what lets a run that was killed go on where it stopped."""

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from thanos.artifacts import atomic_file, read_json, write_json
from thanos.content import file_hash
from thanos.errors import UserError

from .layer import LayerRecord
from .lock import locked
from .safetensors_layout import StoredTensor, read_layout

logger = logging.getLogger(__name__)

_IDENTITY = "run.json"
_FINISHED = ("block-*.json", "checkpoint-*/manifest.json")  # blocks, and states of a training


class FinishedBlocks:
    """The finished blocks of one run: weights and records, in a folder of their own.

    A block counts as finished when its record, written last, has the hash of its weights. Blocks
    after the first that is missing or damaged, and all blocks of a run that was set up otherwise,
    are removed when the folder is opened, and one line of log says so.

    Args:
        folder: where they lie; made if it is not there.
        identity: everything that the pruned weights depend on, as JSON values.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        self.records: list[list[LayerRecord]] = []  # [block][layer]
        self.tensors: dict[str, StoredTensor] = {}  # pruned weights by their name in the source
        folder.mkdir(parents=True, exist_ok=True)
        difference = self._difference(dict(identity))
        if difference:
            logger.warning("%s; starting afresh", difference)
            self._remove_from(0)
        write_json(folder / _IDENTITY, dict(identity))
        while self._weights(len(self)).exists() or self._record(len(self)).exists():
            fault = self._fault(len(self))
            if fault:
                logger.warning("%s; pruning again from block %d on", fault, len(self))
                break
            self._add(len(self), _read_records(self._record(len(self))))
        self._remove_from(len(self))
        if len(self):
            logger.info("%d finished blocks in %s are not done again", len(self), folder)

    def __len__(self) -> int:
        return len(self.records)

    def keep(
        self, index: int, tensors: Mapping[str, Tensor], records: Sequence[LayerRecord]
    ) -> None:
        """Write the next finished block; when this returns a kill can no longer undo it.

        Args:
            index: of the block; blocks are finished in their order.
            tensors: its pruned weights, by their name in the source.
            records: of its layers.
        """
        if index != len(self):
            raise ValueError(f"block {index} cannot follow {len(self)} finished ones")
        with atomic_file(self._weights(index)) as temporary:
            save_file(dict(tensors), temporary)
        write_json(
            self._record(index),
            {
                "sha256": file_hash(self._weights(index), anew=True),
                "layers": [asdict(record) for record in records],
            },
        )
        self._add(index, list(records))

    def _add(self, index: int, records: list[LayerRecord]) -> None:
        self.records.append(records)
        self.tensors.update(read_layout(self._weights(index)))

    def _difference(self, identity: dict[str, Any]) -> str | None:
        """Why what lies in the folder is not of this run."""
        file = self.folder / _IDENTITY
        if not file.exists():
            return None if not any(self.folder.glob("block-*")) else f"{file} is missing"
        try:
            old = read_json(file)
        except UserError:
            return f"{file} is damaged"
        keys = [key for key in {**old, **identity} if old.get(key) != identity.get(key)]
        return f"{self.folder} is of another run ({', '.join(keys)} changed)" if keys else None

    def _fault(self, index: int) -> str | None:
        """What is wrong with a block's files."""
        weights, record = self._weights(index), self._record(index)
        if not record.exists():
            return f"{weights} has no record"
        try:
            expected = read_json(record)
            _read_records(record)
        except (UserError, KeyError, TypeError):
            return f"{record} is damaged"
        if not weights.exists():
            return f"{weights} is missing"
        if file_hash(weights, anew=True) != expected.get("sha256"):
            return f"{weights} is damaged: its content differs from its record"
        return None

    def _remove_from(self, index: int) -> None:
        for file in self.folder.glob("block-*"):
            if int(file.stem.partition("-")[2]) >= index:
                file.unlink()

    def _weights(self, index: int) -> Path:
        return self.folder / f"block-{index:04d}.safetensors"

    def _record(self, index: int) -> Path:
        return self.folder / f"block-{index:04d}.json"


@contextmanager
def work_folder(path: Path, *, wait: bool = False) -> Iterator[Path]:
    """A folder that is removed when all went well, and kept if there is something to go on from.

    That are the records of finished blocks, checkpoints of a training, and JSON files in a folder
    called `measurements`. When all went well, only the blocks and the checkpoints of others are:
    those in folders below this one.

    Args:
        path: the folder, which one process at a time works in.
        wait: for another process to end that works in it.

    Raises:
        UserError: another process works in it, and `wait` is false.
    """
    with locked(path, wait):
        for leftover in sorted(path.rglob(".*")):  # of a write that was cut short
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)
        try:
            yield path
        except BaseException:
            kept = (*_FINISHED, "measurements/*.json")
            if not any(file for pattern in kept for file in path.rglob(pattern)):
                shutil.rmtree(path)
            raise
        if any(file for pattern in _FINISHED for file in path.glob(f"*/{pattern}")):
            logger.warning("finished blocks of other options stay in %s", path)
        else:
            shutil.rmtree(path)


def _read_records(file: Path) -> list[LayerRecord]:
    rows = read_json(file)["layers"]
    return [LayerRecord(**{**row, "shape": tuple(row["shape"])}) for row in rows]
