"""Whether a public corpus or task can be had here, before anything is made that would need it."""

import functools
from pathlib import Path

from .sources import EVALUATION, Split, mirrored_file

_HUB_SECONDS = 5.0  # to wait for an answer


def corpus_can_be_had(source: str, mirror: str | Path | None) -> bool:
    """Whether the evaluation text of a source is in the mirror, or else here or on the hub.

    Args:
        source: one of `sources.SOURCES` that needs no file of its own.
        mirror: folder that takes the hub's place.
    """
    split = EVALUATION.get(source)
    if split is None:
        return True
    if mirror is not None:
        return mirrored_file(split, Path(mirror)) is not None
    return _on_this_machine(split) or _hub_answers(split.repository, split.revision)


def _on_this_machine(split: Split) -> bool:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(
        split.repository, split.filename, revision=split.revision, repo_type="dataset"
    )
    return isinstance(found, str)


@functools.cache
def _hub_answers(repository: str, revision: str) -> bool:
    import httpx2
    from huggingface_hub import HfApi

    try:
        HfApi().dataset_info(repository, revision=revision, timeout=_HUB_SECONDS)
    except (OSError, ValueError, httpx2.HTTPError):  # no network, or offline by choice
        return False
    return True
