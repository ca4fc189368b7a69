"""How many requests to have in flight at a server whose capacity nobody told us."""

from __future__ import annotations

import time
from collections.abc import Callable

LEAST = 4  # a server that refuses at random, whatever it is asked, must not end at one at a time
PROBE_AFTER = 8  # rounds without a gain, after which one more step up is tried


class AdaptiveSlots:
    """A number of slots that grows while that raises throughput, and halves when the server objects.

    It doubles every round trip until a doubling no longer pays, goes back, and probes by an eighth now
    and then; a round is as many answers as there are slots. With `fixed`, it is that number and stays so.
    """

    def __init__(
        self,
        *,
        start: int = 32,
        maximum: int = 256,
        fixed: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.slots = fixed if fixed is not None else min(start, maximum)
        self._fixed = fixed is not None
        self._maximum = maximum
        self._clock = clock
        self._doubling = True
        self._since = clock()  # of the last change: what began before it says nothing about it
        self._cut = self._since  # when it last halved
        self._answers = 0
        self._seconds = 0.0
        self._good = self.slots
        self._best = 0.0
        self._held = 0

    def answered(self, began: float, in_flight: int) -> None:
        """An answer arrived to a request that began then, with so many in flight at that time."""
        # Where the driver did not fill the slots, more of them would change nothing.
        if self._fixed or began < self._since or in_flight * 4 < self.slots * 3:
            return
        self._answers += 1
        self._seconds += self._clock() - began
        if self._answers >= self.slots:
            self._end_of_round()

    def overloaded(self, began: float) -> None:
        """The server asked for fewer at a time: half as many, once for all that were in flight."""
        if self._fixed or began < self._cut:
            return
        self._doubling = False
        self._best = 0.0
        self._good = max(min(LEAST, self.slots), self.slots // 2)
        self._change(self._good)
        self._cut = self._since

    def _end_of_round(self) -> None:
        # Little's law: this many in flight, each for the mean latency, is the throughput.
        throughput = self.slots * self._answers / max(self._seconds, 1e-9)
        if throughput > self._best * 1.05:
            self._good, self._best, self._held = self.slots, throughput, 0
            self._grow()
        elif self.slots > self._good:
            self._doubling = False
            self._change(self._good)
        else:
            # Servers change: what was measured long ago counts for less and less.
            self._best = (self._best + throughput) / 2
            self._held += 1
            if self._held >= PROBE_AFTER:
                self._held = 0
                self._grow()
            else:
                self._change(self.slots)

    def _grow(self) -> None:
        step = self.slots if self._doubling else self.slots // 8 + 1
        self._change(min(self._maximum, self.slots + step))

    def _change(self, slots: int) -> None:
        self.slots = slots
        self._since = self._clock()
        self._answers, self._seconds = 0, 0.0
