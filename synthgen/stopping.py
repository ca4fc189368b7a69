"""Asking a run to stop, by signals too."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

DRAIN_SECONDS = 10.0


class Stop(threading.Event):
    """Asks a run to stop, and, by `at_once`, not to wait for what is in flight either.

    `heeded` says that the run looks at it several times a second.
    """

    def __init__(self) -> None:
        super().__init__()
        self.at_once = False
        self.heeded = False


@contextmanager
def cancel_on(signals: Sequence[int], stop: Stop, notify: Callable[[str], None]) -> Iterator[list[int]]:
    """Set `stop` at the first of these signals, saying so, and `stop.at_once` at the second.

    Where nobody heeds it the second raises KeyboardInterrupt. It never does so in the midst of generation,
    where an engine or a connection may be at work, and none of them expects it.

    Gives a list that holds the signals that came.
    """
    import signal

    came: list[int] = []

    def handle(number: int, _: object) -> None:
        came.append(number)
        if len(came) > 1:
            stop.at_once = True
            if stop.heeded:
                return
            raise KeyboardInterrupt
        stop.set()
        notify(
            f"stopping: {DRAIN_SECONDS:.0f} seconds at most for what is in flight; once more stops at once"
        )

    before = {number: signal.signal(number, handle) for number in signals}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
