"""The measurement of the convolutions."""

import pytest

from crbp_d2.layers.cost_model import Direct, Problem
from tools.benchmarks.convolution import (
    PROBLEMS,
    MethodTimes,
    convolution_table,
    cost_rows,
    fitted,
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


def test_fitted_coefficients_are_those_of_the_times():
    truth = Direct(call=1e-4, product=2e-11, pixel=3e-9, block=8)
    rows = [MethodTimes(p, "TF32", {"direct": truth.seconds(p), "fft": 1.0}, "direct") for p in PROBLEMS]
    expected = "Direct(call=1.0e-04, product=2.0e-11, pixel=3.0e-09, block=8)"
    assert fitted(Direct, rows, "direct").strip() == f'"direct": {expected},'
    text = cost_rows(rows, "cuda")
    assert text.splitlines()[:2] == ["    # TF32", '    ("cuda", torch.float32): {'] and "Fourier(" in text
