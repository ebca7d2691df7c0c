"""Processes by names that hold beyond this machine and beyond their own life."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path


def host() -> str:
    """8 hex digits for the machine and, on it, the container: a process has its number there alone."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return digest(f"{socket.gethostname()}\0{space}")


def digest(text: str) -> str:
    """8 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def started(pid: int) -> str:
    """When a process began, in the kernel's ticks, for numbers are given anew; empty for one that is dead, or where
    the system does not tell."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return ""
    return "" if state in b"ZX" else fields[18].decode()


def lives(pid: int, begun: str) -> bool:
    """Whether the process that began then still runs on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return started(pid) == begun


def boot() -> str:
    """This start of this machine; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""
