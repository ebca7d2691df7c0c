"""Files and folders as the disk has them: names are UTF-8 whatever the locale, links are followed, sizes bounded."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ddrep.errors import UserError

MAX_BYTES = 1 << 30
"""Of a file that is read whole: more than any image, list or label map has, less than would exhaust the memory."""

Place = tuple[int, int, int, int]
"""Device, inode, size and time of a file: the same for all its names, spellings and links, as no two files have them
(inode numbers alone come twice on some network file systems)."""


class Found(NamedTuple):
    """An entry of a folder. `status` is of what a link leads to, or the error of looking there."""

    name: str
    path: bytes
    status: os.stat_result | OSError

    @property
    def is_folder(self) -> bool:
        return isinstance(self.status, os.stat_result) and stat.S_ISDIR(self.status.st_mode)

    @property
    def exists(self) -> bool:
        return not isinstance(self.status, OSError)

    @property
    def regular(self) -> os.stat_result:
        """Raises OSError or ValueError for anything but a regular file: a named pipe would be waited for."""
        if isinstance(self.status, OSError):
            raise self.status
        if not stat.S_ISREG(self.status.st_mode):
            raise ValueError("a folder" if self.is_folder else "not a regular file")
        return self.status

    @property
    def place(self) -> Place:
        """Raises OSError or ValueError for anything but a regular file."""
        status = self.regular
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def raw(path: Path | str) -> bytes:
    """The bytes of a path that a setting names: its characters in UTF-8, or else as the locale writes them."""
    utf8 = str(path).encode("utf-8", "surrogateescape")
    try:
        local = os.fsencode(path)
    except UnicodeEncodeError:
        return utf8
    return local if os.path.lexists(local) and not os.path.lexists(utf8) else utf8


def text(name: bytes) -> str:
    """A name to be shown or sorted by; what is not UTF-8 in it is kept as surrogates."""
    return name.decode("utf-8", "surrogateescape")


def look(path: bytes, name: str | None = None) -> Found:
    """What `path` leads to."""
    try:
        status: os.stat_result | OSError = os.stat(path)
    except OSError as e:
        status = e
    except ValueError:  # which Python raises for a null character
        status = OSError(errno.EINVAL, "a null character in its name")
    return Found(text(path) if name is None else name, path, status)


def inside(folder: bytes) -> list[Found]:
    """What lies in a folder, by name, hidden entries (.DS_Store, drafts of killed jobs) apart. Raises UserError."""
    try:
        names = [name for name in os.listdir(folder) if not name.startswith(b".")]
    except OSError as e:
        raise UserError(f"{text(folder)}: {reason(e)}; expected a folder that can be read") from None
    return sorted(look(os.path.join(folder, name), text(name)) for name in names)


def below(folder: bytes, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Found]:
    """All that is no folder below a folder, at any depth, named by its path from there. Raises UserError.

    Links to folders are followed, but not back to a folder that they lie in.
    """
    status = os.stat(folder)
    here = above | {(status.st_dev, status.st_ino)}
    for found in inside(folder):
        if not found.is_folder:
            yield found
        elif isinstance(found.status, os.stat_result) and (found.status.st_dev, found.status.st_ino) not in here:
            for each in below(found.path, here):
                yield each._replace(name=f"{found.name}/{each.name}")


def opened(path: bytes) -> BinaryIO:
    """Raises OSError or ValueError for what is not a regular file."""
    _ = look(path).regular
    return open(path, "rb")


def read_bytes(path: bytes) -> bytes:
    """Raises OSError or ValueError for what is not a regular file of at most MAX_BYTES."""
    with opened(path) as file:
        check_size(os.fstat(file.fileno()).st_size)
        return file.read()


def check_size(size: int) -> None:
    """Raise ValueError for more than MAX_BYTES, and for fewer than none, which a tar may say that a member has."""
    if not 0 <= size <= MAX_BYTES:
        raise ValueError(f"{size} bytes, expected at most {MAX_BYTES}")


def read_text(path: bytes) -> str:
    """A list in UTF-8, with or without a byte order mark. Raises UserError."""
    try:
        return as_text(read_bytes(path))
    except (OSError, ValueError) as e:
        raise UserError(f"{text(path)}: {reason(e)}; expected a text file in UTF-8") from None


def as_text(content: bytes) -> str:
    """Raises ValueError where it is not UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise ValueError(f"not UTF-8 at byte {e.start}") from None


def reason(error: Exception) -> str:
    """What is wrong with a file, in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    if isinstance(error, MemoryError) and not str(error):
        return "takes more memory than there is"
    # Pillow's own message repeats the path
    said = "not an image" if "cannot identify" in str(error) else str(error) or type(error).__name__
    return said if len(said) <= 150 else said[:147] + "..."


def names_in(folder: Path) -> list[str]:
    """Sorted names of what lies in a folder, hidden files apart; none if it is no folder."""
    path = raw(folder)
    return sorted(text(name) for name in os.listdir(path) if not name.startswith(b".")) if os.path.isdir(path) else []
