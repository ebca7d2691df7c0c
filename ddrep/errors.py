"""The one exception for what the user can mend, and the exit status that goes with it."""


class UserError(Exception):
    """Bad input. The message is one line: the file or key, what was expected, what to do."""
