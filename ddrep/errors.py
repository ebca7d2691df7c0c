"""The one exception for what the user can mend, and the exit status that goes with it."""


class UserError(Exception):
    """Bad input. The message is one line: the file or key, what was expected, what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def printable(message: str) -> str:
    """The message with escapes for what is not UTF-8, as a file's name may not be: terminals and logs refuse it."""
    return message.encode("utf-8", "backslashreplace").decode()
