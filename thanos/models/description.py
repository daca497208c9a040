"""Open what describes a model, its configuration and its tokenizer, without the code of any model.

Whoever only cuts windows of tokens needs no more: importing models takes seconds and 120 MB.
"""

from importlib.util import find_spec
from pathlib import Path

from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from thanos.errors import UserError

from .location import local_folder
from .quiet import quiet

# Files of which a tokenizer can be made.
_TOKENIZERS = (
    *("tokenizer.json", "vocab.json", "vocab.txt", "tekken.json"),
    *("*.model", "*.spm", "*.tiktoken"),
)


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
        UserError: no such model, no tokenizer beside it, a damaged one, or one that needs a package
            which is not installed.
    """
    folder = local_folder(path, revision, weights=False, trust_remote_code=trust_remote_code)
    _check_sentencepiece(folder)
    with quiet():
        try:
            return AutoTokenizer.from_pretrained(
                folder, trust_remote_code=trust_remote_code, local_files_only=True
            )
        except Exception as error:  # the tokenizers library raises plain Exception
            read_config(folder, trust_remote_code)  # it is looked at first, and may be the fault
            if any(any(folder.glob(name)) for name in _TOKENIZERS):
                raise UserError(f"tokenizer in {folder} is unusable: {reason_of(error)}") from error
            raise UserError(
                f"{folder} holds no tokenizer (none of {', '.join(_TOKENIZERS)}); "
                "copy the model's tokenizer files there"
            ) from error


def _check_sentencepiece(folder: Path) -> None:
    """Refuse a tokenizer that cannot be read without SentencePiece, which is not installed.

    transformers would take it for one of tiktoken, or open one that knows no words.
    """
    if (folder / "tokenizer.json").exists() or find_spec("sentencepiece"):
        return
    for file in sorted((*folder.glob("*.model"), *folder.glob("*.spm"))):
        with file.open("rb") as stream:
            if stream.read(1) == b"\n":  # the tag of its first piece; tiktoken's files are text
                raise UserError(
                    f"tokenizer in {folder} is a SentencePiece model ({file.name}), which the "
                    "package sentencepiece reads: pip install sentencepiece protobuf, or put the "
                    "model's tokenizer.json there"
                )


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
    """The first line of a library's message, which often runs over many, or its first sentence."""
    if "trust_remote_code" in str(error):
        return "the model brings its own Python code; set trust_remote_code to run it"
    if isinstance(error, KeyError):
        return f"KeyError: {error}"
    lines = (str(error).strip() or type(error).__name__).splitlines()
    reason, *more = map(str.strip, lines)
    for line in more:
        if not reason.endswith(":") and reason.count("`") % 2 == 0:
            break
        reason = f"{reason} {line}"
    return reason
