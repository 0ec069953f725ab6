"""Every cell under every rule, convolution and precision: a training step and an inference against float32."""

import pytest
from helpers.agreement import METHODS, PRECISIONS, check_agreement

from crbp_d2.cells import CELLS
from crbp_d2.recurrence import RULES


@pytest.mark.filterwarnings("ignore::crbp_d2.recurrence.UnconvergedWarning")
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("method,kernel_size", METHODS)
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("rule", RULES)
def test_agreement_with_float32(rule, name, method, kernel_size, precision):
    check_agreement(rule, name, method, kernel_size, precision)
