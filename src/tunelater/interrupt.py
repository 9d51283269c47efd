"""Ctrl-C before anything is there to report it: one line and exit code 130, not a traceback of imports.

Nothing heavy is imported here, because the command's entry point starts with it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


def quiet() -> None:
    """From now on Ctrl-C ends the process at once, but where it is `raised`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored, as under nohup
        signal.signal(signal.SIGINT, _end)


@contextmanager
def raised() -> Iterator[None]:
    """Ctrl-C as a KeyboardInterrupt again, so that what is unfinished can be cleaned up."""
    if signal.getsignal(signal.SIGINT) is not _end:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, _end)


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, b"stopped\n")
    os._exit(130)
