"""The rows of a zero-shot task as the hub has them, for a mirror."""

from pathlib import Path

from ..errors import UserError, is_full_disk
from .benchmarks import DEFINITIONS, FOLDER


def fetch_task(task: str, mirror: Path) -> tuple[Path, str]:
    """Write the split that lm-eval scores to `zeroshot/<task>.jsonl`; return file and revision.

    Raises:
        UserError: the hub does not give the data set.
    """
    import lm_eval.tasks
    from datasets import load_dataset
    from huggingface_hub import HfApi
    from lm_eval.tasks._yaml_loader import load_yaml

    config = load_yaml(Path(lm_eval.tasks.__file__).parent / DEFINITIONS[task])
    repository, split = config["dataset_path"], config.get("test_split")
    file = mirror / FOLDER / f"{task}.jsonl"
    try:
        revision = HfApi().dataset_info(repository).sha
        rows = load_dataset(
            repository,
            config.get("dataset_name"),
            split=split or config["validation_split"],
            revision=revision,
        )
    except Exception as error:  # a data set's formats and the network fail in many ways
        if is_full_disk(error):
            raise
        raise UserError(
            f"zero-shot task {task}: {repository} could not be fetched from the Hugging Face hub "
            f"({type(error).__name__}); run the same command again"
        ) from error
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".part")
    rows.to_json(temporary, force_ascii=False)
    temporary.replace(file)
    return file, str(revision)
