"""Norms that are applied at every step."""

import pytest
import torch
from torch import nn

from crbp_d2.cells import HGRUCell
from crbp_d2.layers.norms import build_norm


@pytest.mark.parametrize("channels,groups", [(256, 32), (25, 25), (48, 24), (36, 18), (37, 1), (8, 8)])
def test_group_norm_divides_any_width(channels, groups):
    norm = build_norm("GN", channels)
    assert norm.num_groups == groups
    assert (norm.weight == 0.1).all()


def test_batch_norm_has_no_memory():
    norm = build_norm("BN", 4)
    x = torch.randn(3, 4, 5, 5)
    trained = norm(x)
    assert norm.running_mean is None
    assert torch.equal(trained, norm.eval()(x))
    assert norm.eps == 1e-3


def test_layer_norm_is_over_all_of_a_sample():
    x = 3 + 2 * torch.randn(2, 6, 5, 5)
    normed = build_norm("LN", 6, scale=1.0)(x).flatten(1)
    torch.testing.assert_close(normed.mean(1), torch.zeros(2), rtol=0, atol=1e-5)
    torch.testing.assert_close(normed.var(1, unbiased=False), torch.ones(2), rtol=0, atol=1e-4)


def test_none_is_nothing_and_unknown_names_are_refused():
    assert isinstance(build_norm("none", 4), nn.Identity)
    with pytest.raises(ValueError, match="norm is 'IN'; allowed: BN, GN"):
        HGRUCell(8, 3, norm="IN")
