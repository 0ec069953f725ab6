"""The choice by the clock, with a clock of its own."""

import pytest
import torch

from crbp_d2.layers import timing


@pytest.fixture
def clock(monkeypatch):
    """Calls that take as long as they say; the time passes with them."""

    class Clock:
        now = 0.0

        def taking(self, *seconds):
            turns = iter([*seconds] * 100)

            def call():
                self.now += next(turns)

            return call

    clock = Clock()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock.now)
    return clock


def test_ratios_are_medians_over_rounds(clock):
    calls = {"a": clock.taking(0.02), "b": clock.taking(0.01, 0.03, 0.01), "c": clock.taking(0.05)}
    found = timing.time_ratios(calls, torch.device("cpu"))
    assert found == pytest.approx({"a": 1.0, "b": 0.5, "c": 2.5})


def test_another_call_must_be_clearly_faster_than_the_first(clock):
    for seconds, best in ((0.95, "first"), (0.8, "second")):
        calls = {"first": clock.taking(1.0), "second": clock.taking(seconds)}
        assert timing.fastest(calls, torch.device("cpu")) == best


def test_slow_calls_are_timed_once(clock):
    timing.time_ratios({"a": clock.taking(5.0), "b": clock.taking(5.0)}, torch.device("cpu"))
    assert clock.now == 20
