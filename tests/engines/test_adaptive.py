from __future__ import annotations

from synthgen.engines.adaptive import LEAST, PROBE_AFTER, AdaptiveSlots


class Server:
    """A server on a clock of its own: each round trip takes `latency` at the present concurrency."""

    def __init__(self, capacity: int, **options: int) -> None:
        self.now = 0.0
        self.capacity = capacity
        self.slots = AdaptiveSlots(clock=lambda: self.now, **options)

    def round(self, in_flight: int | None = None) -> int:
        """Answer as many as there are slots, all begun together; beyond its capacity it gets no faster."""
        count = self.slots.slots if in_flight is None else in_flight
        began = self.now
        self.now += max(1.0, count / self.capacity)
        for _ in range(count):
            self.slots.answered(began, count)
        return self.slots.slots


def test_doubles_while_that_pays_up_to_the_maximum() -> None:
    server = Server(capacity=10_000, start=32, maximum=256)
    assert [server.round() for _ in range(4)] == [64, 128, 256, 256]


def test_goes_back_where_more_slots_gain_nothing() -> None:
    server = Server(capacity=64, start=32, maximum=256)
    assert [server.round() for _ in range(3)] == [64, 128, 64]


def test_probes_again_only_after_a_while_and_by_a_little() -> None:
    server = Server(capacity=64, start=32, maximum=256)
    seen = [server.round() for _ in range(3 + PROBE_AFTER + 1)]
    assert seen[2:] == [64] * PROBE_AFTER + [73, 64]


def test_follows_a_server_that_got_larger() -> None:
    server = Server(capacity=64, start=32, maximum=256)
    for _ in range(3):
        server.round()
    server.capacity = 10_000
    for _ in range(PROBE_AFTER * 40):
        server.round()
    assert server.slots.slots > 240  # where a step up gains less than can be told from noise


def test_overload_halves_once_for_all_that_were_in_flight() -> None:
    server = Server(capacity=100, start=64)
    began = server.now
    server.now += 1
    for _ in range(20):
        server.slots.overloaded(began)
    assert server.slots.slots == 32
    server.slots.overloaded(server.now)
    assert server.slots.slots == 16


def test_a_request_from_before_the_last_growth_still_halves() -> None:
    server = Server(capacity=10_000, start=32, maximum=256)
    began = server.now
    server.round()
    server.slots.overloaded(began)
    assert server.slots.slots == 32


def test_never_below_a_few() -> None:
    for start, least in ((64, LEAST), (2, 2)):
        server = Server(capacity=1, start=start)
        for _ in range(9):
            server.now += 1
            server.slots.overloaded(server.now)
        assert server.slots.slots == least


def test_recovers_slowly_after_an_overload() -> None:
    server = Server(capacity=10_000, start=32, maximum=256)
    server.now += 1
    server.slots.overloaded(server.now)
    assert server.slots.slots == 16
    assert [server.round() for _ in range(2)] == [19, 22]


def test_answers_to_a_driver_that_left_slots_empty_change_nothing() -> None:
    server = Server(capacity=10_000, start=32, maximum=256)
    for _ in range(20):
        server.round(in_flight=8)
    assert server.slots.slots == 32


def test_fixed_is_exact() -> None:
    server = Server(capacity=10, fixed=300)
    for _ in range(5):
        server.round()
    server.slots.overloaded(server.now)
    assert server.slots.slots == 300
