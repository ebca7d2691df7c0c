"""What the user can mend, in one line, and how the machine's own complaints are put in one."""

from __future__ import annotations

import re
from collections.abc import Iterable

OUT_OF_MEMORY = ("can't allocate memory", "CUDA out of memory", "CUDA error: out of memory")
"""torch's words, in errors of a general type."""
LONGEST = 4000
"""Characters of a line: a file may hold names of any length."""


LOGGED = re.compile(r"^\d\d:\d\d:\d\d ddrep: (?!interrupted)(.*)", re.M)
"""Such a line at the end of a command's log; one that was interrupted has not failed."""


class UserError(Exception):
    """Bad input. The message is one line, whatever the file holds that it quotes: the file or key, what was expected,
    what to do."""

    def __init__(self, said: str) -> None:
        # names of files keep their spaces
        super().__init__(" ".join(filter(None, map(str.strip, said.splitlines()))))


CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


def printable(message: str) -> str:
    """In one line, with escapes for what is not UTF-8, which terminals and logs refuse, and for control characters,
    which terminals obey."""
    return " ".join(message.encode("utf-8", "backslashreplace").decode().split()).translate(CONTROLS)


def some(things: Iterable[object], most: int = 10) -> str:
    """The first of them, for a message, and how many more there are."""
    names = list(map(str, things))
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return printable(", ".join(names[:most]) + more) or "nothing"


def complaint(e: BaseException) -> str | None:
    """The line for an error that the user can mend, or the machine's owner; None for a defect."""
    said = printable(str(e)[: 10 * LONGEST])
    said = said if len(said) <= LONGEST else f"{said[:LONGEST]}... ({len(str(e))} characters)"
    if isinstance(e, UserError):
        return said
    if isinstance(e, OSError):
        place = f"{printable(str(e.filename))}: " if e.filename is not None else ""
        why = e.strerror.lower() if e.strerror and place else said
        return f"{place}{why}; mend that, and give the same command again"
    if isinstance(e, ImportError) and ".so" in said:
        return f"a library cannot be loaded ({said}); allow more memory (ulimit -v), or install it anew"
    if isinstance(e, MemoryError) or any(words in said for words in OUT_OF_MEMORY):
        return f"not enough memory{f' ({said})' if said else ''}; ask for less at once, or use a larger machine"
    if isinstance(e, ValueError) and "embedded null" in said:
        return "a name of a file holds a null character; see what was given"
    if isinstance(e, UnicodeEncodeError):
        return f"{e.object[:LONGEST]!r}: a character that no text has; see what was given"
    if isinstance(e, RecursionError):
        return "a setting or a file is nested too deeply to be read; see what was given"
    return None
