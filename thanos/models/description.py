"""Open what describes a model, its configuration and its tokenizer, without the code of any model.

Whoever only cuts windows of tokens needs no more: importing models takes seconds and 120 MB.
"""

from pathlib import Path

from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from thanos.errors import UserError

from .location import local_folder
from .quiet import quiet


def load_config(
    path: str | Path, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedConfig:
    """Return the configuration of the model at `path` (folder or hub id).

    Raises:
        UserError: no such model, or its config.json cannot be used.
    """
    folder = local_folder(path, revision, weights=False, trust_remote_code=trust_remote_code)
    return read_config(folder, trust_remote_code)


def load_tokenizer(
    path: str | Path, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """Return the tokenizer of the model at `path` (folder or hub id).

    Raises:
        UserError: no such model, no tokenizer beside it, or a damaged one.
    """
    folder = local_folder(path, revision, weights=False, trust_remote_code=trust_remote_code)
    with quiet():
        try:
            return AutoTokenizer.from_pretrained(
                folder, trust_remote_code=trust_remote_code, local_files_only=True
            )
        except Exception as error:  # the tokenizers library raises plain Exception
            files = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
            if any((folder / name).exists() for name in files):
                raise UserError(f"tokenizer in {folder} is unusable: {reason_of(error)}") from error
            raise UserError(
                f"{folder} holds no tokenizer (none of {', '.join(files)}); "
                "copy the model's tokenizer files there"
            ) from error


def read_config(folder: Path, trust_remote_code: bool) -> PreTrainedConfig:
    """Return the configuration in a model folder.

    Raises:
        UserError: its config.json cannot be used.
    """
    with quiet():
        try:
            return AutoConfig.from_pretrained(
                folder, trust_remote_code=trust_remote_code, local_files_only=True
            )
        except Exception as error:  # any value of any key of a config.json may be wrong
            raise UserError(f"{folder / 'config.json'} is unusable: {reason_of(error)}") from error


def reason_of(error: Exception) -> str:
    """The first line of a library's message, which often runs over many."""
    if "trust_remote_code" in str(error):
        return "the model brings its own Python code; set trust_remote_code to run it"
    return (str(error).strip() or type(error).__name__).splitlines()[0]
