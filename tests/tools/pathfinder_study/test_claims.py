"""Claims on made-up records whose answers are known, for and against."""

import json
from dataclasses import replace

import numpy as np
import pytest
from helpers.study_records import RUNS, pilot, write_records

from tools.pathfinder_study.claims import CLAIMS
from tools.pathfinder_study.comparisons import above, at_least, at_most, best, decide, f1, lost, training_time
from tools.pathfinder_study.dynamics import series_lacks
from tools.pathfinder_study.pilots import better_rates
from tools.pathfinder_study.records import Scores, Study, load_study
from tools.pathfinder_study.state_space import compare_drift, state_space
from tools.pathfinder_study.verdict_section import values_cell, verdict_cell
from tools.pathfinder_study.verdicts import evaluate_claims


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return load_study(write_records(tmp_path_factory.mktemp("runs")))


def outcomes(study):
    return {claim.id: outcome for claim, outcome in evaluate_claims(study)}


def changed(study, run, **changes):
    """The study with other values in every record of a run; functions get the record."""
    return Study(
        [
            replace(r, **{k: v(r) if callable(v) else v for k, v in changes.items()}) if r.run == run else r
            for r in study.records
        ]
    )


def with_f1(values):
    """Every spec with these values at N, 2 N, 4 N, 8 N and 16 N, the last one repeated."""
    multiples = np.array([1, 2, 4, 8, 16])
    filled = np.array([*values, *[values[-1]] * (5 - len(values))])
    return lambda r: {
        spec: Scores(r.steps * multiples, filled, 1) if r.steps else Scores(np.array([0]), filled[:1], 1)
        for spec in r.quality
    }


def test_every_claim_holds_on_records_made_to_hold(study):
    found = outcomes(study)
    assert len(found) == len(CLAIMS) >= 27
    assert {name: outcome.holds for name, outcome in found.items() if outcome.holds is not True} == {}
    assert not any(outcome.why for outcome in found.values())


def test_values_and_their_ranges(study):
    found = outcomes(study)["crbp_beats_rbp"]
    names = ("PF6s F1 at N of hgru_crbp", "PF6s F1 at N of hgru_rbp")
    assert found.values == pytest.approx(dict(zip(names, (0.95, 0.70), strict=True)))
    spread = found.spreads[names[1]]
    assert (spread.least, spread.greatest, spread.seeds) == (pytest.approx(0.696), pytest.approx(0.704), 3)
    assert "hgru_rbp 0.700 (0.696 to 0.704)" in values_cell(found)
    assert verdict_cell(found) == "holds, whichever seeds are compared"
    assert outcomes(study)["radius_below_one"].values["greatest hgru_crbp"] == pytest.approx(0.86)
    assert verdict_cell(outcomes(study)["tbptt_loses"]) == "holds"


@pytest.mark.parametrize(
    ("bound", "text", "holds", "certain"),
    [
        # Seeds differ by 0.008: bptt 0.966 to 0.974, cbptt 0.956 to 0.964, crbp 0.946 to 0.954.
        (at_least(f1("hgru_bptt"), f1("hgru_cbptt")), "above PF6s F1 at N of hgru_cbptt", True, True),
        (at_least(f1("hgru_bptt"), f1("hgru_cbptt"), 0.009), "at least 0.009 above", True, False),
        (at_least(f1("hgru_bptt"), f1("hgru_cbptt"), 0.012), "at least 0.012 above", False, False),
        (at_least(f1("hgru_bptt"), f1("hgru_cbptt"), 0.019), "at least 0.019 above", False, True),
        (at_least(f1("hgru_crbp"), f1("hgru_bptt"), -0.029), "at most 0.029 below", True, True),
        (at_least(f1("hgru_crbp"), f1("hgru_bptt"), -0.019), "at most 0.019 below", False, False),
        (at_least(f1("hgru_crbp"), 0.95 - 1e-9), "at least 0.95", True, False),
        (at_most(lost("hgru_crbp"), 0.011), "F1 lost from N to 4 N of hgru_crbp at most 0.011", True, True),
        (at_most(lost("hgru_crbp"), 0.009), "at most 0.009", False, True),
        (above(lost("hgru_crbp", 16, "PF9s"), 0.04), "PF9s F1 lost from N to 16 N of hgru_crbp above 0.04", True, True),
        (at_most(f1("hgru_deq"), f1("hgru_rbp")), "at most PF6s F1 at N of hgru_rbp", True, True),
        (at_most(f1("hgru_rbp"), f1("hgru_deq")), "at most PF6s F1 at N of hgru_deq", False, True),
        (at_most(training_time("hgru_crbp"), training_time("hgru_bptt"), 2.01), "at most 2.01 times", True, True),
        (at_most(training_time("hgru_crbp"), training_time("hgru_bptt"), 1.99), "at most 1.99 times", False, True),
        (at_least(f1("hgru_progressive", 2, "PF9s"), best("hgru_progressive", "PF9s")), "best F1 over t", False, False),
    ],
)
def test_bounds(study, bound, text, holds, certain):
    found = decide(study, [bound], lambda missed: str(missed))
    assert text in str(bound)
    assert (found.holds, found.certain, bool(found.why)) == (holds, certain, not holds)


def test_one_seed_leaves_no_range(study):
    alone = Study([record for record in study.records if record.seed == 0])
    found = decide(alone, [at_least(f1("hgru_bptt"), f1("hgru_crbp"))], str)
    assert found.holds is True and found.certain is None


@pytest.mark.parametrize(
    ("claim", "run", "changes", "words"),
    [
        ("progressive_reaches_bptt", "hgru_progressive", {"quality": with_f1([0.96])}, "is missed by 0.005"),
        ("progressive_reaches_bptt_in_time", "hgru_progressive_time", {"quality": with_f1([0.95])}, "missed by 0.01."),
        ("progressive_reaches_bptt_in_time", "hgru_progressive_time", {"seconds": {"training": 340.0}}, "1.02 times"),
        (
            "progressive_converges",
            "hgru_progressive",
            {"quality": with_f1([0.969])},
            "0.97 is missed by 0.001",
        ),
        ("progressive_keeps", "hgru_progressive", {"quality": with_f1([0.98, 0.98, 0.98, 0.98, 0.96])}, "to 16 N"),
        ("progressive_uses_more_steps", "hgru_progressive", {"quality": with_f1([0.9, 0.89])}, "PF12s F1 at 2 N"),
        ("progressive_longer_contours", "hgru_bptt", {"quality": with_f1([0.5, 0.95, 0.4])}, "PF9s best F1 over t"),
        ("progressive_beats_crbp", "hgru_crbp_random", {"quality": with_f1([0.99])}, "hgru_crbp_random is missed"),
        ("progressive_trained_on_longer", "pf9s_progressive", {"quality": with_f1([0.7])}, "PF9s F1 at N"),
        ("crbp_beats_rbp", "hgru_rbp", {"quality": with_f1([0.952])}, "is missed by 0.002"),
        ("crbp_near_bptt", "hgru_crbp", {"quality": with_f1([0.92])}, "0.03 below PF6s F1 at N of hgru_bptt"),
        ("crbp_keeps", "hgru_crbp", {"quality": with_f1([0.88, 0.86, 0.84])}, "is missed by 0.01"),
        ("bptt_loses", "hgru_bptt", {"quality": with_f1([0.9, 0.88])}, "above 0.03 is missed by 0.01"),
        ("cbptt_loses_less", "hgru_cbptt", {"quality": with_f1([0.9, 0.5])}, "hgru_cbptt is missed by 0.1"),
        (
            "penalty_separates",
            "hgru_rbp",
            {"stability": lambda r: r.stability | {"penalty": np.array(0.001)}},
            "hgru_cbptt keeps its F1 (loses 0.020) at a penalty of 0.01, hgru_rbp loses 0.050 at 0.001",
        ),
        (
            "penalty_lowers",
            "hgru_rbp",
            {"stability": lambda r: r.stability | {"penalty": np.array(0.001)}},
            "hgru_rbp (0.001) have no more penalty than hgru_cbptt (0.01)",
        ),
        (
            "bptt_leaves_region",
            "hgru_bptt",
            {"state_space": lambda r: r.state_space | {"pooled_at_T": r.state_space["pooled_at_N"]}},
            "Against it: seed 0 (D 0.00, p 1)",
        ),
        (
            "crbp_stays_in_region",
            "hgru_crbp",
            {"state_space": lambda r: r.state_space | {"pooled_at_T": r.state_space["pooled_at_N"] + 9}},
            "Against it: seed 0 (D 1.00",
        ),
        ("crbp_longer_contours", "hgru_crbp", {"quality": with_f1([0.9, 0.35])}, "PF9s F1 at 4 N of hgru_crbp"),
        ("crbp_longer_contours_best", "hgru_crbp", {"quality": with_f1([0.65])}, "PF9s best F1 over t of hgru_crbp"),
        ("recurrent_beats_feedforward", "ff2", {"quality": with_f1([0.96])}, "hgru_crbp above PF6s F1 at N of ff2"),
        ("deq_no_better", "hgru_deq", {"quality": with_f1([0.71])}, "missed by 0.01"),
        (
            "radius_below_one",
            "hgru_crbp",
            {"stability": lambda r: r.stability | {"spectral_radius": np.array([0.5, 1.1])}},
            "at the last state it contracts (spectral radius 0.800)",
        ),
    ],
)
def test_a_claim_fails_where_its_bound_is_passed_and_says_why(study, claim, run, changes, words):
    found = outcomes(changed(study, run, **changes))[claim]
    assert found.holds is False and words in found.why, found.why


def test_what_is_not_run_is_neither_true_nor_false(study):
    assert {outcome.holds for outcome in outcomes(Study([])).values()} == {None}
    for run in RUNS:
        alone = outcomes(Study(study[run]))
        assert json.dumps({name: outcome.values for name, outcome in alone.items()}, allow_nan=False)
    without = outcomes(Study([r for r in study.records if r.run != "hgru_bptt"]))
    assert without["bptt_loses"].holds is None and without["crbp_keeps"].holds is True


def test_what_is_left_open_is_decided_by_the_shorter_trainings_and_marked(study):
    without = Study([r for r in study.records if r.run != "hgru_deq"])
    assert outcomes(without)["deq_no_better"].holds is None
    found = {claim.id: outcome for claim, outcome in evaluate_claims(without, study)}
    assert found["deq_no_better"].holds is True and found["deq_no_better"].earlier
    assert verdict_cell(found["deq_no_better"]) == "holds, whichever seeds are compared (1,000 iterations)"
    assert not found["crbp_keeps"].earlier


def test_the_penalty_has_nothing_to_tell_apart_where_no_rule_loses(study):
    kept = study
    for run in ("hgru_bptt", "hgru_tbptt", "hgru_bptt_every_step", "hgru_rbp"):
        kept = changed(kept, run, quality=with_f1([0.9]))
    assert outcomes(kept)["penalty_separates"].holds is None
    # A rule that was trained with the penalty and loses is one of those that lose.
    found = outcomes(changed(study, "hgru_cbptt", quality=with_f1([0.9, 0.85, 0.8])))["penalty_separates"]
    assert found.holds is True


def test_the_better_rate_is_that_of_the_lower_loss_at_the_end(tmp_path):
    for config, rate, loss in (
        ("a", 1, 0.3),
        ("a", 2, 0.2),
        ("b", 1, 0.1),
        ("b", 2, 0.102),
        ("c", 1, 0.1),
        ("d", 1, 0.1),
        ("d", 2, 0.1005),
    ):
        (tmp_path / f"{config}{rate}.json").write_text(json.dumps(pilot(config, rate, loss)))
    assert better_rates(load_study(tmp_path)) == {"a": 2, "b": 1, "d": 2}


def test_states_that_diverged_leave_a_claim_open(study):
    lost = changed(study, "hgru_bptt", state_space=lambda r: r.state_space | {"pooled_at_T": np.full((64, 8), np.nan)})
    assert outcomes(lost)["bptt_leaves_region"].holds is None


def test_state_space_distances(study):
    record = study.first("hgru_bptt")
    states, path = record.state_space["pooled_at_N"], record.state_space["projection"]
    moved = states + np.array([3.0, 4, 0, 0, 0, 0, 0, 0])
    record = replace(record, state_space={"pooled_at_N": states, "pooled_at_T": moved, "projection": path})
    found = state_space(record)
    up_to = path[:, :6].reshape(-1, 2)
    spread = np.sqrt(up_to.var(axis=0).sum())
    assert found.drift == pytest.approx(np.full(64, 5 / spread))
    assert found.at_trained[0] == pytest.approx(np.linalg.norm(states[0] - states.mean(axis=0)))
    assert found.at_far[0] == pytest.approx(np.linalg.norm(moved[0] - states.mean(axis=0)))
    assert compare_drift([record], [record]).distance == 0 and compare_drift([record], []) is None


def test_what_a_series_lacks_follows_from_the_radius(study):
    def of(radius):
        record = study.first("hgru_crbp")
        stability = record.stability | {"spectral_radius": np.array([radius])}
        return series_lacks(changed(study, "hgru_crbp", stability=lambda record: stability), "hgru_crbp")

    assert "each of its terms is up to 2.50 times the one before" in of(2.5)
    assert "fades by up to 0.80 a step, to 0.07 within N steps" in of(0.8)  # 0.8 ** 12
    assert series_lacks(Study([]), "hgru_crbp") == ""
