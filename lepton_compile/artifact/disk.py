"""What is said of an output that the system does not let be written."""

from __future__ import annotations

import errno

__all__ = ["FULL", "elsewhere", "room", "told"]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def told(error: OSError) -> str:
    """The system's words, and the file that they are of."""
    words = error.strerror or str(error)
    return f"{words}: {error.filename}" if error.filename else words


def room(error: OSError) -> str:
    """How to make room where there is none; empty where that is not what is wrong."""
    if error.errno == errno.EFBIG:
        return "raise the limit on the size of a file (ulimit -f)"
    return "free some space there" if error.errno in FULL else ""


def elsewhere(error: OSError) -> str:
    """What to do where an output could not be written."""
    more = room(error)
    return f"{more}{', or ' * bool(more)}write elsewhere with -o; nothing was left behind"
