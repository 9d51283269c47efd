"""Ctrl-C before anything is there to report it: one line and exit code 130, not a traceback of imports.

The command's entry point starts with it, so nothing is imported here that takes time.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType


def quiet() -> None:
    """From now on Ctrl-C ends the process at once, but where it is `raised`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored, as under nohup
        signal.signal(signal.SIGINT, _end)


class raised:
    """A context in which Ctrl-C is a KeyboardInterrupt again, so that what is unfinished can be cleaned up."""

    def __enter__(self) -> None:
        self._quiet = signal.getsignal(signal.SIGINT) is _end
        if self._quiet:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def __exit__(self, *_: object) -> None:
        if self._quiet:
            signal.signal(signal.SIGINT, _end)


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, b"stopped\n")
    os._exit(130)
