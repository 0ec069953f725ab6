"""Claims on made-up records whose answers are known, for and against."""

import json
from dataclasses import replace

import numpy as np
import pytest
from helpers.study_records import RUNS, write_records

from tools.pathfinder_study.claims import CLAIMS, evaluate_claims
from tools.pathfinder_study.records import Scores, Study, load_study
from tools.pathfinder_study.results_page import verdict_cell
from tools.pathfinder_study.state_space import compare_drift, state_space


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
    """Every spec with these values at N and at 4 N."""
    return lambda r: {
        spec: Scores(np.array([r.steps, 4 * r.steps] if r.steps else [0]), np.array(values), 1) for spec in r.quality
    }


def test_every_claim_holds_on_records_made_to_hold(study):
    found = outcomes(study)
    assert len(found) == len(CLAIMS) >= 12
    assert {name: outcome.holds for name, outcome in found.items() if outcome.holds is not True} == {}
    assert not any(outcome.why for outcome in found.values())


def test_values(study):
    found = outcomes(study)
    assert found["crbp_beats_rbp"].values == pytest.approx(
        {"hgru_crbp": 0.88, "hgru_rbp": 0.70, "least hgru_crbp": 0.876, "greatest hgru_rbp": 0.704}
    )
    assert found["crbp_keeps"].values == pytest.approx({"hgru_crbp at N": 0.88, "hgru_crbp at 4 N": 0.87})
    assert found["crbp_longer_contours"].values == pytest.approx(
        {"hgru_crbp PF9s": 0.77, "hgru_bptt PF9s": 0.4, "hgru_crbp PF12s": 0.67, "hgru_bptt PF12s": 0.2}
    )
    assert found["radius_below_one"].values["greatest hgru_crbp"] == pytest.approx(0.86)
    assert found["recipe_reaches_bptt"].values["row"] == "label of recipe_anderson7_k3"


@pytest.mark.parametrize(
    ("claim", "run", "changes", "words"),
    [
        ("crbp_beats_rbp", "hgru_rbp", {"quality": with_f1([0.878, 0.87])}, "+0.002"),
        ("crbp_near_bptt", "hgru_crbp", {"quality": with_f1([0.85, 0.85])}, "-0.050 to hgru_bptt"),
        ("crbp_keeps", "hgru_crbp", {"quality": with_f1([0.88, 0.84])}, "hgru_crbp loses 0.040"),
        ("bptt_loses", "hgru_bptt", {"quality": with_f1([0.9, 0.88])}, "hgru_bptt loses 0.020"),
        ("cbptt_loses_less", "hgru_cbptt", {"quality": with_f1([0.9, 0.5])}, "hgru_cbptt loses 0.400"),
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
        ("crbp_longer_contours", "hgru_crbp", {"quality": with_f1([0.9, 0.35])}, "on PF12s"),
        ("crbp_longer_contours_best", "hgru_crbp", {"quality": with_f1([0.65, 0.65])}, "on PF9s"),
        ("recurrent_beats_feedforward", "ff2", {"quality": with_f1([0.89])}, "hgru_crbp stay below ff2"),
        ("deq_no_better", "hgru_deq", {"quality": with_f1([0.71, 0.71])}, "0.010 better"),
        (
            "radius_below_one",
            "hgru_crbp",
            {"stability": lambda r: r.stability | {"spectral_radius": np.array([0.5, 1.1])}},
            "at the last state it contracts (spectral radius 0.800)",
        ),
        (
            "recipe_reaches_bptt",
            "recipe_anderson7_k3",
            {"seconds": {"training": 660.0}},
            "label of recipe_weight3000, misses by F1 0.202 lower",
        ),
        (
            "recipe_holds_longer",
            "long_contracting",
            {"seconds": {"training": 660.0}},
            "long_contracting, misses by 2.00 times the time. At 4 N its F1 differs from long_bptt_lr's by +0.285.",
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
    one_seed = Study([r for r in study.records if r.seed == 0])
    assert outcomes(one_seed)["crbp_beats_rbp"].holds is None


def test_the_row_of_the_ablation_is_chosen_on_validation_stimuli(study):
    better_in_test = changed(study, "recipe_weight3000", quality=with_f1([0.99, 0.99]))
    found = outcomes(better_in_test)["recipe_reaches_bptt"]
    assert found.values["row"] == "label of recipe_anderson7_k3" and found.values["F1 at N"] == pytest.approx(0.895)
    probe = {"f1": np.array([0.9]), "f1_far": np.array([0.9])}
    found = outcomes(changed(better_in_test, "recipe_weight3000", probe=probe))["recipe_reaches_bptt"]
    assert found.values["row"] == "label of recipe_weight3000"
    probe["f1_far"] = np.array([0.5])
    found = outcomes(changed(better_in_test, "recipe_weight3000", probe=probe))["recipe_reaches_bptt"]
    assert found.values["row"] == "label of recipe_anderson7_k3"


@pytest.mark.parametrize("run", ["hgru_bptt", "hgru_bptt_lr"])
def test_the_recipe_is_held_against_both_references_or_none(study, run):
    assert outcomes(Study([r for r in study.records if r.run != run]))["recipe_reaches_bptt"].holds is None


def test_the_penalty_has_nothing_to_tell_apart_where_no_rule_loses(study):
    kept = study
    for run in ("hgru_bptt", "hgru_tbptt", "hgru_bptt_every_step", "hgru_rbp"):
        kept = changed(kept, run, quality=with_f1([0.9, 0.9]))
    assert outcomes(kept)["penalty_separates"].holds is None
    # A rule that was trained with the penalty and loses is one of those that lose.
    found = outcomes(changed(study, "hgru_cbptt", quality=with_f1([0.9, 0.8])))["penalty_separates"]
    assert found.holds is True


def test_margins(study):
    found = outcomes(study)
    assert found["crbp_near_bptt"].margin == pytest.approx(0.01) and found["bptt_loses"].margin == pytest.approx(0.27)
    assert found["crbp_keeps"].margin == pytest.approx(0.02) and found["deq_no_better"].margin == pytest.approx(0.05)
    assert found["radius_below_one"].margin is None
    worse = outcomes(changed(study, "hgru_crbp", quality=with_f1([0.85, 0.85])))["crbp_near_bptt"]
    assert worse.margin == pytest.approx(-0.02)
    assert verdict_cell(worse, 0.021) == "**fails**, by less than the seeds' spread"
    assert verdict_cell(worse, 0.019) == "**fails**"


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
