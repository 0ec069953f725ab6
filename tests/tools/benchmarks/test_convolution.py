"""The measurement of the convolutions."""

import torch

from crbp_d2.layers.cost_model import Problem
from tools.benchmarks.convolution import (
    MethodTimes,
    StepTimes,
    convolution_panels,
    convolution_section,
    measure_methods,
    measure_steps,
)


def problem(kernel, image, channels=2, batch=1):
    return Problem(batch, channels, channels, image, image, kernel)


def test_every_supported_method_of_every_problem_is_measured():
    problems = [problem(3, 6), problem(5, 6), problem(3, 6, channels=32)]
    rows = list(measure_methods(problems, rounds=2))
    assert [row.problem for row in rows] == problems
    assert [list(row.seconds) for row in rows] == [
        ["direct"], ["direct", "fft"], ["direct"],
    ]  # fmt: skip
    steps = list(measure_steps(kernel=5, image=6, rounds=2))
    assert [row.name for row in steps] == ["hGRU step, 5 x 5, 6 x 6", "its vector-Jacobian product, 5 x 5, 6 x 6"]
    for row in (*rows, *steps):
        assert min(row.seconds.values()) > 0


def test_section_shows_milliseconds_the_choice_and_what_it_loses():
    rows = [
        MethodTimes(problem(5, 48), torch.float32, {"direct": 0.2, "fft": 0.1}, "direct"),
        MethodTimes(problem(3, 48), torch.bfloat16, {"direct": 0.4}, "direct"),
    ]
    step = StepTimes("a step", {"direct": 0.5, "fft": 0.1, "auto": 0.125}, 4.0)
    text = convolution_section(rows, [step], threads=2)
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert cells[0][-3:] == ["auto", "fastest", "auto / fastest"]
    assert cells[2][5:] == ["200.00", "100.00", "direct", "fft", "2.00"]
    assert cells[3][4:] == ["bfloat16", "400.00", "-", "direct", "direct", "1.00"]
    assert cells[-1] == ["a step", "500.00", "100.00", "125.00", "4.00"]
    assert "threads: 2" in text and "1.41" in text and "2.00" in text


def test_a_panel_an_image_size():
    rows = [
        MethodTimes(problem(k, image), torch.float32, {"direct": 0.5 * k, **({"fft": 0.1} if k > 3 else {})},
                    "fft" if k > 3 else "direct")
        for image in (48, 150)
        for k in (3, 5)
    ]  # fmt: skip
    panels = convolution_panels(rows)
    assert [panel.title for panel in panels] == ["48 x 48 px", "150 x 150 px"]
    curves = panels[1].curves
    assert curves["direct"] == ([3, 5], [1500, 2500]) and curves["fft"] == ([5], [100])
    assert curves["auto"] == ([3, 5], [1500, 100])
