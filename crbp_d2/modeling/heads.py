"""Common parts of the recurrent heads."""

from torch import Tensor, nn

from crbp_d2.recurrence import Recurrence, RecurrenceOutput
from crbp_d2.recurrence.state import State
from crbp_d2.utils.errors import ContradictionError, check_choice, check_number, check_whole

# Of the heads of detectron2's models, by its names.
READOUT_NORMS = ("", "BN", "SyncBN", "GN")


class RecurrentHead(nn.Module):
    """Mixin of a head that runs a recurrence, weighs its penalty and may take other numbers of steps in inference."""

    recurrence: Recurrence
    penalty_weight: float
    test_steps: int | None

    def set_recurrence(self, recurrence: Recurrence, penalty_weight: float, test_steps: int | None) -> None:
        """Check and keep the arguments that all recurrent heads take.

        Raises:
            SettingError: a negative or infinite weight, test_steps < 1.
            ContradictionError: no weight for the penalty that the recurrence has.
        """
        owner = type(self).__name__
        check_number(owner, "[0, inf)", penalty_weight=penalty_weight)
        if test_steps is not None:
            check_whole(owner, test_steps=test_steps)
        if penalty_weight == 0 and recurrence.penalty is not None:
            raise ContradictionError(
                {"penalty_weight": penalty_weight, "recurrence": recurrence.penalty},
                f"{recurrence.penalty!r} would have no effect; give it a positive weight, or choose a rule without a "
                "penalty, such as 'rbp' in place of 'crbp' and 'bptt' in place of 'cbptt'",
                owner,
            )
        self.recurrence = recurrence
        self.penalty_weight = penalty_weight
        self.test_steps = test_steps

    def solve(self, drive: Tensor, state: State | None = None) -> RecurrenceOutput:
        """Run the recurrence; in inference `test_steps` steps."""
        return self.recurrence(drive, state=state, steps=None if self.training else self.test_steps)

    def weighted_penalty(self, output: RecurrenceOutput) -> Tensor:
        """The penalty's term of the loss."""
        return output.penalty * self.penalty_weight


def check_readout_norm(head: nn.Module, norm: str, channels: int) -> None:
    """Check a norm that detectron2's get_norm builds.

    Raises:
        SettingError: another name.
        ContradictionError: "GN", which is of 32 groups there, on channels that these do not divide.
    """
    owner = type(head).__name__
    check_choice(owner, READOUT_NORMS, readout_norm=norm)
    if norm == "GN" and channels % 32:
        raise ContradictionError(
            {"readout_norm": norm, "channels": channels}, "detectron2's group norm has 32 groups; choose BN", owner
        )


def recurrences(model: nn.Module) -> dict[str, Recurrence]:
    """The recurrences of a model by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Recurrence)}


def recurrent_heads(model: nn.Module) -> list[nn.Module]:
    """The modules of a model that hold a recurrence and read out its state."""
    return [module for module in model.modules() if isinstance(getattr(module, "recurrence", None), Recurrence)]
