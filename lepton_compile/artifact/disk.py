"""What is said of an output that the system does not let be written."""

from __future__ import annotations

import errno

__all__ = ["FULL", "elsewhere", "told"]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def told(error: OSError) -> str:
    """The system's words, and the file that they are of."""
    words = error.strerror or str(error)
    return f"{words}: {error.filename}" if error.filename else words


def elsewhere(error: OSError) -> str:
    """What to do where an output could not be written."""
    full = error.errno in FULL
    return f"{'free some space, or ' * full}write elsewhere with -o; nothing was left behind"
