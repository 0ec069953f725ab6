"""The cache that the steps of a solve share."""

import threading

import pytest
from helpers.problems import TanhCell, drive_for

from crbp_d2.layers.cache import serves_many_products, solve_cache, solve_scope
from crbp_d2.recurrence import learning_rule
from crbp_d2.recurrence.diagnostics import lipschitz_coefficient, spectral_radius


def test_scopes_share_what_is_outside_and_are_of_their_thread():
    seen = []
    with solve_scope():
        outer = solve_cache()
        with solve_scope():
            assert solve_cache() is outer
        thread = threading.Thread(target=lambda: seen.append(solve_cache()))
        thread.start()
        thread.join()
        with pytest.raises(KeyError), solve_scope():
            raise KeyError
        assert solve_cache() is outer
    assert seen == [None] and solve_cache() is None


def test_each_run_has_one_cache_of_its_own():
    class Watching(TanhCell):
        def forward(self, drive, state):
            caches.append(solve_cache())
            return super().forward(drive, state)

    caches = []
    cell = Watching()
    recurrence = learning_rule("crbp", cell, steps=4)
    for _ in range(2):
        recurrence(drive_for(cell))
    assert len(caches) == 8 and all(cache is not None for cache in caches)
    assert all(a is b for a, b in zip(caches, [caches[0]] * 4 + [caches[4]] * 4, strict=True))
    assert caches[0] is not caches[4] and solve_cache() is None


ONCE, MANY = [False, False, False, False], [False, False, False, True]


@pytest.mark.parametrize(
    "rule,settings,forward",
    [
        ("crbp", {}, MANY),
        # A penalty asks for products before the gradient does.
        ("cbptt", {}, MANY),
        ("bptt", {}, ONCE),
        ("tbptt", {"truncation": 2}, ONCE),
    ],
)
def test_the_step_that_a_series_goes_back_through_knows_it(rule, settings, forward):
    cell, seen = TanhCell(), []
    cell.register_forward_pre_hook(lambda *_: seen.append(serves_many_products()))
    drive = drive_for(cell)[:2]
    output = learning_rule(rule, cell, steps=4, **settings)(drive)
    assert seen == forward and not serves_many_products()
    output.state[0].sum().backward()
    assert seen == forward and not serves_many_products()


def test_the_step_whose_jacobian_is_asked_about_knows_it():
    cell, seen = TanhCell(), []
    cell.register_forward_pre_hook(lambda *_: seen.append(serves_many_products()))
    drive = drive_for(cell)
    for ask in (spectral_radius, lipschitz_coefficient):
        ask(cell, drive, cell.initial_state(drive))
    assert seen == [True] * 2
