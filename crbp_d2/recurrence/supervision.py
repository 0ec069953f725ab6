"""Supervision: the states of a training run that are read out, and the weights of their losses."""

from dataclasses import dataclass

from crbp_d2.utils.errors import check_choice, check_number

NAMES = ("last", "every")


@dataclass(frozen=True)
class Mixed:
    """Reads the state at the solver's own number of steps and the one at the number drawn for the run.

    Bansal et al. 2022 mix the losses of both, so that training for many steps costs no quality at the usual number.

    Args:
        fixed_weight: weight of the loss at the solver's own number; that of the other one is 1 - fixed_weight.

    Raises:
        SettingError: fixed_weight outside (0, 1).
    """

    fixed_weight: float = 0.5

    def __post_init__(self) -> None:
        check_number("Mixed", "(0, 1)", fixed_weight=self.fixed_weight)

    def reads(self, steps: int, fixed: int) -> list[tuple[int, float]]:
        """Steps after which states with graphs of their own are read, in order, and the weights of their losses.

        Args:
            steps: steps of the run.
            fixed: the solver's own number of steps.
        """
        if steps == fixed:
            return [(steps, 1.0)]
        return sorted([(fixed, self.fixed_weight), (steps, 1 - self.fixed_weight)])


Supervision = str | Mixed


def check_supervision(supervision: Supervision) -> None:
    """Raise a SettingError for a name that is neither "last" nor "every"."""
    if not isinstance(supervision, Mixed):
        check_choice("Recurrence", NAMES, supervision=supervision)
