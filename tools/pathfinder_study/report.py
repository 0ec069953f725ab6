"""Everything that is drawn and written from the records of the Pathfinder study."""

import os
from pathlib import Path

from crbp_d2.utils.files import write_text

from .analysis import write_analysis
from .checkpoints import with_checkpoint, write_config
from .figures import draw_figures
from .gallery import gallery_page
from .harder_scenes import HARDER, draw_harder_steps
from .panoptic_results import RESULTS, draw_toy_steps, trained_steps
from .records import load_study
from .results_page import results_page
from .runs import SCALES
from .summary import write_summary
from .unrolling import unroll
from .verdicts import evaluate_claims

# Of the shorter trainings, which stand in for runs that have no record yet.
EARLIER = SCALES["small_1000"].folder
TOY_CONFIG = "configs/quick/panoptic_R18_crbp_toy.yaml"


def write_report(folder: Path, root: Path) -> None:
    """Write figures, the checkpoints' configs, summary and gallery into `folder`, and docs/RESULTS.md into `root`.

    All of it from `folder`/runs/*.json; what these leave open from the runs of the shorter trainings.

    Args:
        folder: of the study, inside `root`.
        root: of the repository; configs and checkpoints are found from there.

    Raises:
        ValueError: a broken record, naming file and key; a checkpoint that does not fit its config.
    """
    folder, root = Path(folder).resolve(), Path(root).resolve()
    study, earlier = load_study(folder / "runs"), load_study(root / EARLIER / "runs")
    figures = Path(os.path.relpath(folder / "figures", root)).as_posix()
    written = draw_figures(study, folder / "figures")
    trained = trained_steps(TOY_CONFIG, root)
    if draw_toy_steps(root / RESULTS, folder / "figures", trained):
        written.append("panoptic_toy")
    harder = draw_harder_steps(root)
    if harder:
        harder.save(folder / "figures", HARDER)
        written.append(HARDER)
    (root / "docs").mkdir(exist_ok=True)
    write_analysis(study, earlier, figures, root)
    outcomes = evaluate_claims(study, earlier)
    for record in with_checkpoint(study, root):
        write_config(record, root)
    write_summary(folder / "summary.json", study, outcomes, figures, root)
    write_text(root / "docs/RESULTS.md", results_page(study, earlier, outcomes, written, figures, root))
    page = gallery_page(study, earlier, outcomes, written, folder, unroll(study, root, earlier), root)
    write_text(folder / "gallery.html", page)
