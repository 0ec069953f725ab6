"""What every solver asks of a state: whether it is finite, and parts of it by sample."""

import pytest
import torch

from crbp_d2.recurrence.state import is_finite, select


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_sample_is_finite_if_every_element_of_every_tensor_is(dtype, bad):
    largest = torch.finfo(dtype).max
    state = torch.full((5, 2, 3), largest, dtype=dtype), torch.full((5, 7), -largest, dtype=dtype)
    assert is_finite(state).tolist() == [True] * 5
    state[0][1, 1, 2] = state[1][4, 0] = bad
    assert is_finite(state).tolist() == [True, False, True, True, False]
    assert is_finite(tuple(part[:0] for part in state)).shape == (0,)


@pytest.mark.parametrize("mask", [[True, True], [False, False], [True, False]])
def test_select_takes_each_sample_from_where_the_mask_says(mask):
    chosen, other = ((torch.full((2, 3), value), torch.full((2, 1, 4), value)) for value in (1.0, torch.nan))
    for part, whole in zip(select(torch.tensor(mask), chosen, other), chosen, strict=True):
        assert part.shape == whole.shape
        assert [sample.isfinite().all().item() for sample in part] == mask
