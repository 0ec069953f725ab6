"""The rule that the pages advise for any number of steps, the pilots it is chosen from, and the page's first sentences.

N: steps trained with.
"""

from collections.abc import Sequence

from .claims import Claim
from .figure_style import compact_table, name_of
from .predicates import LONGER, TRAINED, Outcome, best, f1, lost, spread_cell
from .records import Study

# A rule is both stable and expressive within these bounds: F1 below BPTT's at N, F1 lost from N to 16 N.
NEAR_BPTT, LOST_FAR = 0.005, 0.005
FAR = "hgru_progressive_far"
# Pilots of a rule that is both: run -> difference to FAR.
PILOTS = {
    "hgru_progressive_mixed": "half of the loss at N, half at a random t",
    "hgru_progressive_far_8": "8 recorded steps in place of 6",
    "hgru_progressive_far_10": "10 recorded steps in place of 6",
    "hgru_progressive_far_long": "6,000 iterations in place of 4,000",
}


def is_both(study: Study, run: str) -> bool:
    """True if a rule is within NEAR_BPTT of BPTT at N and loses at most LOST_FAR to 16 N."""
    bptt, near, far = (quantity.spread(study) for quantity in (f1("hgru_bptt"), f1(run), lost(run, 16)))
    return bool(bptt and near and far and near.mean >= bptt.mean - NEAR_BPTT and far.mean <= LOST_FAR)


def advised(study: Study) -> str:
    """The best pilot at N of those that are both; FAR without one."""
    both = [run for run in PILOTS if is_both(study, run)]
    return max(both, key=lambda run: study.mean_f1(run, TRAINED)) if both else FAR


def pilot_section(study: Study) -> list[str]:
    """The advice, and one row for each pilot that has a record."""
    rows = []
    for run, difference in ({FAR: "starts up to 8 N, 6 recorded steps"} | PILOTS).items():
        if not study[run]:
            continue
        bptt, near, far = (quantity.spread(study) for quantity in (f1("hgru_bptt"), f1(run), lost(run, 16)))
        below = f"{bptt.mean - near.mean:.3f}" if bptt and near else "-"
        both = "yes" if is_both(study, run) else "no"
        rows.append([name_of(run), difference, spread_cell(near), below, f"{far.mean:.3f}" if far else "-", both])
    headers = ["rule", "setting", "F1 at N", "below BPTT", "lost to 16 N", "both"]
    waiting = [name_of(run) for run in PILOTS if not study[run]]
    text = advice(study) + (f" Not run yet: {'; '.join(waiting)}." if waiting else "")
    return [text, compact_table(headers, rows)] if rows else [text]


def advice(study: Study) -> str:
    """One or two sentences for pages: the rule to start with."""
    run = advised(study)
    bounds = f"within {NEAR_BPTT} of BPTT's F1 at N and at most {LOST_FAR} lost to 16 N"
    if run in PILOTS:
        return f"Advice: {name_of(run)} ({PILOTS[run]}), the best rule that is both ({bounds})."
    return (
        f"No rule is both so far ({bounds}): use BPTT for N steps only, {name_of(FAR)} for any other number of steps."
    )


def first_sentences(study: Study, outcomes: Sequence[tuple[Claim, Outcome]]) -> str:
    """Five sentences: the task, BPTT, random starts, C-RBP, and the number of claims that hold; a line each."""
    done = sum(bool(record.quality) for record in study.records)
    lines = [
        f"**The task**: a small recurrent network marks one of two long contours ({TRAINED}: 6 dashes on 48 x 48 px), "
        f"in {done} runs of one thread each; F1 is on unseen stimuli, N the number of steps in training.",
        _sentence(study, "BPTT", "hgru_bptt", (1, 4), "states and readout drift apart after the last trained step"),
        _sentence(study, "Random starts up to 8 N", FAR, (1, 4, 16), _longer(study)),
        _sentence(study, "C-RBP", "hgru_crbp", (1, 4, 16), _contracting(study)),
        _counts(outcomes),
    ]
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, start=1))


def _sentence(study: Study, title: str, run: str, multiples: Sequence[int], more: str) -> str:
    spreads = [f1(run, multiple).spread(study) for multiple in multiples]
    if not all(spreads):
        return f"**{title}**: not run."
    places = ["N" if multiple == 1 else f"{multiple} N" for multiple in multiples]
    values = [f"{spread.mean:.3f} at {place}" for spread, place in zip(spreads, places, strict=True)]
    return f"**{title}**: F1 {', '.join(values)}{'; ' * bool(more)}{more}."


def _longer(study: Study) -> str:
    ours, bptt = f1(FAR, 2, LONGER[-1]).spread(study), best("hgru_bptt", LONGER[-1]).spread(study)
    if not ours or not bptt:
        return ""
    return f"on contours of twice the length {ours.mean:.3f} at 2 N, BPTT {bptt.mean:.3f} at its best t"


def _contracting(study: Study) -> str:
    near, far = (f1("hgru_crbp_contracting", multiple).spread(study) for multiple in (1, 16))
    return f"with a penalty that makes it contract {near.mean:.3f} at N, {far.mean:.3f} at 16 N" if near and far else ""


def _counts(outcomes: Sequence[tuple[Claim, Outcome]]) -> str:
    verdicts = [outcome.holds for _, outcome in outcomes]
    text = f"**Of {len(verdicts)} claims** {verdicts.count(True)} hold and {verdicts.count(False)} fail"
    waiting = verdicts.count(None)
    return f"{text}{f', {waiting} wait for their runs' if waiting else ''}."
