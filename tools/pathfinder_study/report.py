"""The report: everything that is drawn and written from the records of the Pathfinder study.

python -m tools.pathfinder_study.report            # writes the README's table of rules
"""

import os
from pathlib import Path

from crbp_d2.utils.files import write_text
from tools.page import with_generated

from .advice import advised
from .claims import evaluate_claims
from .costs import SAVED_STEPS
from .figure_style import compact_table
from .figures import draw_figures
from .gallery import gallery_page
from .harder_scenes import HARDER, draw_harder_steps
from .ledger import write_verdicts
from .records import Study, load_study
from .results_page import CURVE, results_page, rule_rows
from .runs import SCALES
from .score_figures import quality_over_steps
from .summary import with_checkpoint, write_config, write_summary
from .unrolling import trace, unroll

ROOT = Path(__file__).resolve().parents[2]


def write_report(folder: Path, root: Path) -> None:
    """Write figures, summary, gallery, checkpoints' configs, VERDICTS.md with its tables and docs/RESULTS.md.

    Args:
        folder: the study's results inside `root`, with the records in runs.
        root: repository root.

    Raises:
        ValueError: a broken record, naming file and key; a checkpoint that does not fit its config.
    """
    folder, root = Path(folder).resolve(), Path(root).resolve()
    study = load_study(folder / "runs")
    figures = Path(os.path.relpath(folder / "figures", root)).as_posix()
    written = draw_figures(study, folder / "figures")
    for stem, drawing in ((HARDER, draw_harder_steps(root)), ("trace", trace(study, root))):
        if drawing:
            drawing.save(folder / "figures", stem)
            written.append(stem)
    if curve := quality_over_steps(study, advised(study)):
        curve.save_picture(root / CURVE)
    for record in with_checkpoint(study, root):
        write_config(record, root)
    outcomes = evaluate_claims(study, root)
    write_summary(folder / "summary.json", study, outcomes, root)
    (root / "docs").mkdir(exist_ok=True)
    write_text(root / "docs/RESULTS.md", results_page(study, outcomes, written, figures, root))
    write_verdicts(study, written, figures, root)
    write_text(folder / "gallery.html", gallery_page(written, folder, unroll(study, root), root))


def readme_table(study: Study, root: Path) -> str:
    """The README's table: F1 at N, 4 N and 16 N and memory of BPTT, C-RBP, the advised rule and a feedforward net."""
    runs = ("hgru_bptt", "hgru_crbp", "hgru_crbp_contracting", advised(study), "ff6")
    rows = [[row[0], *(str(cell).split(" (")[0] for cell in row[2:5]), row[-1]] for row in rule_rows(study, runs, root)]
    memory = f"memory at {' / '.join(map(str, SAVED_STEPS))} steps, MiB"
    return compact_table(["rule", "F1 at N", "at 4 N", "at 16 N", memory], rows)


if __name__ == "__main__":
    table = readme_table(load_study(ROOT / SCALES["small"].folder / "runs"), ROOT)
    write_text(ROOT / "README.md", with_generated((ROOT / "README.md").read_text(), "rules", table))
