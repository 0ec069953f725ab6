"""The `gpu` fixture: a pretended device, and under `pytest -m gpu` a card."""

import pytest
import torch
from helpers.pretended_device import PretendedDevice

from tools.data_sets import free
from tools.soak.small_runs import SETS, register_small_sets

CARD = [pytest.param("card", marks=pytest.mark.gpu)] if torch.cuda.is_available() else []


@pytest.fixture(params=["pretended", *CARD])
def gpu(request):
    """The pretended device, or None on a card, where float32 is computed in full."""
    if request.param == "pretended":
        with PretendedDevice() as device:
            yield device
        return
    kept = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield None
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = kept


@pytest.fixture(scope="module")
def small_sets(tmp_path_factory):
    free(*SETS)
    register_small_sets(tmp_path_factory.mktemp("datasets"))
    yield
    free(*SETS)
