"""The error that a person reads."""


class UserError(Exception):
    """Bad input: one line that says what was wrong, where (key, layer, file) and what to do.

    Commands print the message without a traceback and exit with a non-zero status.
    """
