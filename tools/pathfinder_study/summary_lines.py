"""The five lines that the page of results begins with.

N: steps trained with.
"""

from collections.abc import Sequence

from .claims import Claim
from .comparisons import LONGER, TRAINED, Outcome, best, f1
from .records import Study

RANDOM_STARTS = {
    "hgru_progressive": "0 to 12 steps without a graph, then 6 with one",
    "hgru_progressive_far": "0 to 90 steps without a graph, most often few, then 6 with one",
    "hgru_progressive_mixed": "as far, and half of the loss at N",
}


def summary_lines(study: Study, earlier: Study, outcomes: Sequence[tuple[Claim, Outcome]]) -> str:
    """What was done, what BPTT, random starts and C-RBP reach, and how many claims hold; a line each."""
    lines = [_setting(study), _bptt(study, earlier), _random_start(study), _crbp(study, earlier), _claims(outcomes)]
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, start=1))


def _setting(study: Study) -> str:
    done = sum(bool(record.quality) for record in study.records)
    return (
        f"**The task**: a small recurrent network marks one of two long contours ({TRAINED}: 6 dashes on 48 x 48 px), "
        f"trained on one core; {done} runs have reached convergence so far. F1 is on unseen stimuli, N the steps of "
        "training."
    )


def _at(study: Study, earlier: Study, run: str, multiples: Sequence[int]) -> tuple[list[float], str] | None:
    """F1 at multiples of N, and a note where it is of the shorter trainings; None where it is not known."""
    for source, note in ((study, ""), (earlier, " after 1,000 iterations alone")):
        spreads = [f1(run, multiple).spread(source) for multiple in multiples]
        if all(spreads):
            return [spread.mean for spread in spreads], note
    return None


def _bptt(study: Study, earlier: Study) -> str:
    found = _at(study, earlier, "hgru_bptt", (1, 4))
    if found is None:
        return "**BPTT** has not been run."
    (near, far), note = found
    return (
        f"**BPTT** reaches F1 {near:.3f} at its N{note}, and {far:.3f} after 4 N: its states move on to where the "
        "readout was not trained."
    )


def _random_start(study: Study) -> str:
    rows = []
    for run, start in RANDOM_STARTS.items():
        spreads = [f1(run, multiple).spread(study) for multiple in (1, 4, 16)]
        if all(spreads):
            near, middle, far = (spread.mean for spread in spreads)
            name = run.removeprefix("hgru_")
            rows.append(f"`{name}` ({start}) {near:.3f} at N, {middle:.3f} at 4 N, {far:.3f} at 16 N")
    if not rows:
        return "**Random starts** (`progressive`) have not been run to convergence."
    text = f"**Random starts, without a penalty**: {'; '.join(rows)}."
    longest = LONGER[-1]
    ours, bptt = f1("hgru_progressive", 2, longest).spread(study), best("hgru_bptt", longest).spread(study)
    if ours and bptt:
        text += f" On contours of twice the length it has {ours.mean:.3f} at 2 N, BPTT at its best t {bptt.mean:.3f}."
    return text


def _crbp(study: Study, earlier: Study) -> str:
    parts = []
    for run, name in (("hgru_crbp", "C-RBP"), ("hgru_crbp_contracting", "its contracting form")):
        if found := _at(study, earlier, run, (1, 4)):
            (near, far), note = found
            parts.append(f"{name} {near:.3f} at N and {far:.3f} at 4 N{note}")
    return f"**The paper's rule**: {', '.join(parts) or 'C-RBP has not been run'}."


def _claims(outcomes: Sequence[tuple[Claim, Outcome]]) -> str:
    verdicts = [outcome.holds for _, outcome in outcomes]
    text = f"**Of {len(verdicts)} claims** {verdicts.count(True)} hold and {verdicts.count(False)} fail"
    if short := sum(outcome.earlier for _, outcome in outcomes):
        text += f" ({short} of these verdicts are of 1,000 iterations)"
    if waiting := verdicts.count(None):
        text += f", {waiting} wait for their runs"
    return f"{text}; every failure has its reason."
