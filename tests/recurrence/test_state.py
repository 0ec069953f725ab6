"""Norms, finiteness and parts of a state, by sample."""

import pytest
import torch

from crbp_d2.recurrence.state import flatten, select, total, unflatten


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_total_shows_every_nonfinite_element(dtype, bad):
    large = min(torch.finfo(dtype).max, 1e30)
    state = torch.full((5, 2, 3), large, dtype=dtype), torch.full((5, 7), -large, dtype=dtype)
    assert total(state).isfinite().tolist() == [True] * 5
    state[0][1, 1, 2] = state[1][4, 0] = bad
    assert total(state).isfinite().tolist() == [True, False, True, True, False]
    assert total(tuple(part[:0] for part in state)).shape == (0,)


@pytest.mark.parametrize("mask", [[True, True], [False, False], [True, False]])
def test_select_takes_each_sample_from_where_the_mask_says(mask):
    chosen, other = ((torch.full((2, 3), value), torch.full((2, 1, 4), value)) for value in (1.0, torch.nan))
    for part, whole in zip(select(torch.tensor(mask), chosen, other), chosen, strict=True):
        assert part.shape == whole.shape
        assert [sample.isfinite().all().item() for sample in part] == mask


@pytest.mark.parametrize("layouts", ["plain", "last", "last plain", "plain last"])
def test_vectors_have_the_layout_of_the_state(layouts):
    """The vector of one tensor is a view in any layout; another state is flattened in the same order."""
    formats = {"plain": torch.contiguous_format, "last": torch.channels_last}
    chosen = [formats[layout] for layout in layouts.split()]
    values = [torch.randn(2, 3, 4, 5) for _ in chosen]
    state = tuple(x.contiguous(memory_format=layout) for x, layout in zip(values, chosen, strict=True))
    vectors = flatten(state)
    assert vectors.shape == (2, 60 * len(state))
    assert len(state) > 1 or vectors.data_ptr() == state[0].data_ptr()
    assert torch.equal(flatten(tuple(values), state), vectors)
    for back, part in zip(unflatten(vectors.double(), state), state, strict=True):
        assert torch.equal(back, part) and back.stride() == part.stride() and back.dtype == part.dtype


def test_vectors_of_states_of_any_dimension():
    for shape in ((2, 3), (0, 3, 4, 5), (2, 0, 4), (2, 3, 4, 5, 6)):
        state = (torch.randn(shape),)
        (back,) = unflatten(flatten(state), state)
        assert torch.equal(back, state[0])
