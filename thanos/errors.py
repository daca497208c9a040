"""The error that a person reads, and those that no program can mend: of disks and file systems."""

import errno


class UserError(Exception):
    """Bad input: one line that says what was wrong, where (key, layer, file) and what to do.

    Commands print the message without a traceback and exit with a non-zero status. Names from
    files may be in it: line breaks become spaces, and what a terminal would obey is spelt out.
    """

    def __init__(self, message: str) -> None:
        line = " ".join(message.splitlines())
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line))


def is_full_disk(error: BaseException) -> bool:
    """Whether the device is full; safetensors and tokenizers say so only in an error's text."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"(os error {errno.ENOSPC})" in str(error)


def has_no_locks(error: OSError) -> bool:
    """Whether a file system cannot lock: some network and parallel ones answer so."""
    return error.errno in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
