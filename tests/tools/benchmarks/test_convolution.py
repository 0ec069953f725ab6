"""The measurement of the convolutions."""

from tools.benchmarks.convolution import (
    MethodTimes,
    convolution_panels,
    convolution_section,
    measure_convolutions,
    measure_steps,
)


def test_every_method_of_every_size_is_measured():
    rows = [*measure_convolutions(kernels=(3, 5), images=(6,), rounds=2), *measure_steps(kernel=5, image=6, rounds=2)]
    assert [row.name for row in rows] == [
        "3 x 3, 6 x 6",
        "5 x 5, 6 x 6",
        "hGRU step, 5 x 5, 6 x 6",
        "its vector-Jacobian product, 5 x 5, 6 x 6",
    ]
    assert [(row.kernel, row.image) for row in rows] == [(3, 6), (5, 6), (5, 6), (5, 6)]
    for row in rows:
        assert min(row.direct, row.fft, row.auto, row.auto_ratio, row.spectrum) > 0


def test_section_shows_milliseconds_and_the_ratio():
    text = convolution_section([MethodTimes("work", 0.5, 0.1, 0.125, 4.0, 0.02)], threads=2)
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert cells[0][4] == "direct / auto" and cells[2] == ["work", "500.0", "100.0", "125.0", "4.00", "20.0"]
    assert "with 2 threads" in text


def test_a_panel_an_image_size():
    rows = [
        MethodTimes("", 0.5 * k, 0.1, 0.125, 4.0, 0.02, kernel=k, image=image) for image in (48, 150) for k in (3, 5)
    ]
    panels = convolution_panels(rows)
    assert [panel.title for panel in panels] == ["48 x 48 px", "150 x 150 px"]
    assert panels[1].curves["direct"] == ([3, 5], [1500, 2500]) and panels[0].curves["auto"] == ([3, 5], [125, 125])
