"""Predicates and claims on made-up records with known answers."""

import json
from dataclasses import replace

import numpy as np
import pytest
from helpers.study_records import RUNS, pilot, write_records

from tools.pathfinder_study.advice import FAR, advised, is_both
from tools.pathfinder_study.claims import PAPERS, REASONS, evaluate_claims
from tools.pathfinder_study.predicates import (
    Separates,
    above,
    best,
    close,
    contracts,
    decide_all,
    f1,
    keeps,
    leaves,
    loses,
    spread_cell,
    spread_of,
    stays,
)
from tools.pathfinder_study.records import Scores, Study, load_study
from tools.pathfinder_study.runs import better_rates

PENALIZED = Separates(("hgru_crbp", "hgru_cbptt", "hgru_bptt", "hgru_rbp"))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return load_study(write_records(tmp_path_factory.mktemp("runs")))


def changed(study, run, **changes):
    """The study with other values in every record of a run; functions get the record."""
    return Study(
        [
            replace(r, **{k: v(r) if callable(v) else v for k, v in changes.items()}) if r.run == run else r
            for r in study.records
        ]
    )


def with_f1(*values):
    """Every spec with these values at N, 2 N, 4 N, 8 N and 16 N, the last one repeated."""
    multiples = np.array([1, 2, 4, 8, 16])
    filled = np.array([*values, *[values[-1]] * (5 - len(values))])
    return lambda r: {spec: Scores(r.steps * multiples, filled) for spec in r.quality}


def with_states(shift):
    """States at 4 N are those at N, moved."""
    return lambda r: r.state_space | {"pooled_at_T": r.state_space["pooled_at_N"] + shift}


@pytest.mark.parametrize(
    ("predicate", "metric", "holds"),
    [
        # Means: bptt 0.97, cbptt 0.96, crbp 0.95.
        (above(f1("hgru_bptt"), f1("hgru_cbptt")), "PF6s F1 at N: BPTT > C-BPTT", True),
        (above(f1("hgru_cbptt"), f1("hgru_bptt")), "PF6s F1 at N: C-BPTT > BPTT", False),
        (above(f1("hgru_bptt"), f1("hgru_cbptt"), 0.009), "PF6s F1 at N: BPTT >= C-BPTT + 0.009", True),
        (above(f1("hgru_bptt"), f1("hgru_cbptt"), 0.011), "PF6s F1 at N: BPTT >= C-BPTT + 0.011", False),
        (close(f1("hgru_crbp"), f1("hgru_bptt"), 0.021), "PF6s F1 at N: C-RBP >= BPTT - 0.021", True),
        (close(f1("hgru_crbp"), f1("hgru_bptt"), 0.019), "PF6s F1 at N: C-RBP >= BPTT - 0.019", False),
        (keeps("hgru_crbp", 4, 0.011), "PF6s F1 lost to 4 N <= 0.011", True),
        (keeps("hgru_crbp", 4, 0.009), "PF6s F1 lost to 4 N <= 0.009", False),
        (loses("hgru_crbp", 16, 0.04), "PF6s F1 lost to 16 N > 0.04", True),
        (loses("hgru_crbp", 16, 0.06), "PF6s F1 lost to 16 N > 0.06", False),
        (
            above(best("hgru_progressive", "PF9s"), f1("hgru_progressive", 1, "PF9s"), 0.009),
            "PF9s F1 at the best t of progressive >= PF9s F1 at N of progressive + 0.009",
            True,
        ),
        (contracts("hgru_progressive"), "spectral radius at 4 N < 1 in every seed", True),
        (contracts("hgru_bptt"), "spectral radius at 4 N < 1 in every seed", False),
        (leaves("hgru_bptt"), "p of equal states at N, 4 N < 0.01 in every seed", True),
        (leaves("hgru_crbp"), "p of equal states at N, 4 N < 0.01 in every seed", False),
        (stays("hgru_crbp"), "p of equal states at N, 4 N >= 0.01 in every seed", True),
        (stays("hgru_bptt"), "p of equal states at N, 4 N >= 0.01 in every seed", False),
        (PENALIZED, "penalty at N of rules that lose at most 0.03 F1 < that of the others", True),
    ],
)
def test_predicate_renders_and_decides(study, predicate, metric, holds):
    assert predicate.metric == metric
    assert predicate.decide(study).holds is holds


@pytest.mark.parametrize(
    ("predicate", "run", "changes"),
    [
        (keeps("hgru_crbp"), "hgru_crbp", {"quality": with_f1(0.9, 0.88, 0.86)}),
        (loses("hgru_bptt"), "hgru_bptt", {"quality": with_f1(0.9, 0.89, 0.88)}),
        (contracts("hgru_crbp"), "hgru_crbp", {"stability": {"spectral_radius": np.array([0.5, 1.1])}}),
        (leaves("hgru_bptt"), "hgru_bptt", {"state_space": with_states(0)}),
        (stays("hgru_crbp"), "hgru_crbp", {"state_space": with_states(9)}),
        (PENALIZED, "hgru_rbp", {"stability": lambda r: r.stability | {"penalty": np.array(0.001)}}),
    ],
)
def test_predicate_fails_past_its_bound(study, predicate, run, changes):
    assert predicate.decide(study).holds is True
    assert predicate.decide(changed(study, run, **changes)).holds is False


def test_one_seed_decides_where_every_seed_must(study):
    record = study["hgru_crbp"][1]
    outlier = replace(record, stability={"spectral_radius": np.array([1.01])})
    others = [r for r in study.records if r is not record]
    assert contracts("hgru_crbp").decide(Study([*others, outlier])).holds is False


def test_missing_or_short_runs_leave_claims_open(study):
    assert {outcome.holds for _, outcome in evaluate_claims(Study([]), "none")} == {None}
    for run in RUNS:
        outcomes = evaluate_claims(Study(study[run]), "none")
        assert json.dumps([[*outcome.values] for _, outcome in outcomes], allow_nan=False)
    short = changed(study, "hgru_bptt", iterations=3999)
    assert loses("hgru_bptt").decide(short).holds is None and keeps("hgru_crbp").decide(short).holds is True
    diverged = changed(study, "hgru_bptt", state_space=with_states(np.nan))
    assert leaves("hgru_bptt").decide(diverged).holds is None


def test_penalty_needs_rules_on_both_sides(study):
    kept = study
    for run in ("hgru_bptt", "hgru_rbp"):
        kept = changed(kept, run, quality=with_f1(0.9))
    assert PENALIZED.decide(kept).holds is None


def test_all_predicates_of_a_claim_must_hold(study):
    good, bad, missing = keeps("hgru_crbp"), keeps("hgru_bptt"), keeps("nothing")
    assert decide_all(study, (good, good)).holds is True
    assert decide_all(study, (good, bad)).holds is False
    assert decide_all(study, (bad, missing)).holds is None


def test_claims_hold_on_records_made_to_hold(study):
    outcomes = evaluate_claims(study, "none")
    panoptic = len(PAPERS)
    assert 26 <= len(outcomes) <= 32 and len({claim.sentence for claim, _ in outcomes}) == len(outcomes)
    assert [claim.sentence for claim, outcome in outcomes if not outcome.holds] == [outcomes[panoptic][0].sentence]
    assert all(claim.why in REASONS for claim, _ in outcomes)


def test_values_are_means_with_ranges(study):
    found = f1("hgru_rbp").spread(study)
    assert (found.mean, found.minimum, found.maximum) == pytest.approx((0.70, 0.696, 0.704))
    assert str(found) == "0.700 (0.696 to 0.704, 3 seeds)"
    assert spread_cell(found, digits=1, counted=False) == "0.7 (0.7 to 0.7)"
    assert str(spread_of([0.5])) == "0.500" and str(spread_of([2e-5])) == "2e-05" and spread_cell(None) == "-"
    assert spread_of([]) is None and spread_of([0.1, np.nan]) is None


def test_advice_is_the_best_pilot_that_is_both(study):
    # BPTT has 0.97; at 16 N far_long has lost five times its 0.003.
    both = {run: is_both(study, run) for run in RUNS if run.startswith("hgru_progressive_")}
    assert both["hgru_progressive_mixed"] and both["hgru_progressive_far_10"]
    assert not both["hgru_progressive_far_8"] and not both["hgru_progressive_far_long"]
    assert advised(study) == "hgru_progressive_far_10"
    assert advised(Study([r for r in study.records if "far_10" not in r.run])) == "hgru_progressive_mixed"
    assert advised(Study([])) == FAR


def test_better_rate_has_the_lower_final_loss(tmp_path):
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
