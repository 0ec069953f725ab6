import pytest
from helpers.problems import PROBLEMS, drive_for


@pytest.fixture(params=PROBLEMS)
def problem(request):
    """A cell with known Jacobian and a drive that takes gradients."""
    cell = PROBLEMS[request.param]()
    return cell, drive_for(cell).requires_grad_()
