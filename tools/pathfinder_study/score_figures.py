"""Figures of F1 over steps. N: steps trained with."""

from collections.abc import Sequence

import numpy as np

from .figure_style import STYLES, Drawing, around, draw_band, legend_below, line_style, over_seeds, panels, present
from .predicates import LONGER, TRAINED
from .records import Study

MULTIPLES = (1, 4, 16)  # of N


def quality_over_steps(study: Study, ours: str) -> Drawing | None:
    """The small figure of the pages: BPTT, C-RBP and our rule from N to 16 N."""
    return per_step(study, ("hgru_bptt", "hgru_crbp", ours), (TRAINED, LONGER[-1]), start=1)


def per_step(
    study: Study,
    runs: Sequence[str],
    specs: Sequence[str] | None = None,
    relative: bool = True,
    start: float | None = None,
) -> Drawing | None:
    """F1 over steps, a panel a spec, by default all; relative: over t / N, not t; start: left end of the axis."""
    runs, specs = present(study, runs), study.specs if specs is None else [s for s in specs if s in study.specs]
    if not runs or not specs:
        return None
    figure, axes = panels(1, len(specs), sharey=True)
    rows = []
    for axis, spec in zip(axes[0], specs, strict=True):
        for run in runs:
            records = [r for r in study[run] if spec in r.quality]
            if not records:
                continue
            steps, trained = records[0].quality[spec].steps, records[0].steps
            values = over_seeds(records, lambda r, spec=spec: r.quality[spec].f1)
            if trained is None:
                style = line_style(run) | {"marker": "None"}
                axis.axhline(values[0][0], **style)
                rows.append([spec, run, 0, "", *(float(v[0]) for v in values), len(records)])
                continue
            marked = [int(k) for k in np.flatnonzero(np.isin(steps, [m * trained for m in MULTIPLES]))]
            x = steps / trained if relative else steps
            draw_band(axis, x, values, STYLES[run], markevery=marked, markersize=6)
            rows += [
                [spec, run, int(t), t / trained, *(float(v[k]) for v in values), len(records)]
                for k, t in enumerate(steps)
            ]
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set(title=spec, xlabel="steps / trained steps N" if relative else "steps")
        axis.set_xlim(left=start or (0.5 if relative else 4))
    trained = [row[4] for row in rows if row[3] == "" or row[3] >= 1]
    axes[0, 0].set(ylabel="F1", ylim=around(trained))
    legend_below(figure, axes[0, 0])
    return Drawing(figure, ["spec", "run", "t", "t / N", "F1", "minimum", "maximum", "seeds"], rows)
