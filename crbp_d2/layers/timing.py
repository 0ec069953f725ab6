"""The fastest of several ways to compute the same, by the clock."""

import time
from collections.abc import Callable, Mapping
from statistics import median

import torch

# Fraction of the first way's time that another must stay below, which is more than what timings scatter.
CLEARLY_FASTER = 0.9
# Rounds that are timed, and seconds after which no more are begun.
MOST_ROUNDS = 9
MOST_SECONDS = 1.0


def fastest(calls: Mapping[str, Callable[[], object]], device: torch.device) -> str:
    """The name of the fastest call, by the medians of the ratios to the first one, which another must clearly beat."""
    ratios = time_ratios(calls, device)
    first, best = next(iter(ratios)), min(ratios, key=ratios.__getitem__)
    return best if ratios[best] < CLEARLY_FASTER else first


def time_ratios(calls: Mapping[str, Callable[[], object]], device: torch.device) -> dict[str, float]:
    """The time of every call over that of the first: medians over rounds in turn, after one to warm up."""
    for call in calls.values():
        _seconds(call, device)
    rounds: list[list[float]] = []
    while not rounds or len(rounds) < MOST_ROUNDS and sum(map(sum, rounds)) < MOST_SECONDS:
        rounds.append([_seconds(call, device) for call in calls.values()])
    return {name: median(times[k] / times[0] for times in rounds) for k, name in enumerate(calls)}


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
