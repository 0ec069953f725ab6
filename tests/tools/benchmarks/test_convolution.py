"""The measurement of the convolutions."""

import pytest
import torch

from crbp_d2.layers import cost_model
from crbp_d2.layers.cost_model import Direct, Problem
from tools.benchmarks.convolution import (
    PROBLEMS,
    MethodTimes,
    convolution_table,
    cost_rows,
    mean_loss,
    measure_methods,
)


def problem(kernel, image, channels=2, batch=1):
    return Problem(batch, channels, channels, image, image, kernel)


def test_every_method_of_every_problem_is_measured():
    problems = [problem(3, 6), problem(5, 6)]
    rows = list(measure_methods(problems, rounds=2))
    assert [row.problem for row in rows] == problems
    assert [sorted(row.seconds) for row in rows] == [["direct"], ["direct", "fft"]]
    assert all(min(row.seconds.values()) > 0 for row in rows)


def test_table_shows_milliseconds_the_choice_and_its_loss():
    rows = [
        MethodTimes(problem(5, 48), "float32", {"direct": 0.4, "fft": 0.1}, "direct"),
        MethodTimes(problem(3, 48), "bfloat16", {"direct": 0.4}, "direct"),
    ]
    first, second = convolution_table(rows).rows
    assert first[4:] == ["float32", "400.000", "100.000", "direct", "4.00"]
    assert second[4:] == ["bfloat16", "400.000", "-", "direct", "1.00"]
    assert mean_loss(rows) == pytest.approx(2)


def test_fitted_coefficients_are_ready_to_paste():
    truth = Direct(call=1e-4, product=2e-11, pixel=3e-9, block=8)
    rows = [MethodTimes(p, "TF32", {"direct": truth.seconds(p), "fft": 1.0}, "direct") for p in PROBLEMS]
    text = cost_rows(rows, "cuda")
    assert text.startswith("    # TF32\n")
    ((key, (direct, fourier)),) = eval(f"{{{text}}}", {**vars(cost_model)}).items()
    assert key == ("cuda", torch.float32) and direct == truth and isinstance(fourier, cost_model.Fourier)
