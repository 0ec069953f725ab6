"""Panoptic FPN with a recurrent mask head."""

from detectron2.modeling import META_ARCH_REGISTRY, PanopticFPN

from crbp_d2.recurrence import SolveStats
from crbp_d2.utils.errors import check_whole

from .mask_head import RecurrentMaskHead


@META_ARCH_REGISTRY.register()
class RecurrentPanopticFPN(PanopticFPN):
    """detectron2's PanopticFPN, with access to what its recurrent mask head does.

    Raises:
        ValueError: the model has no RecurrentMaskHead.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        head = getattr(self.roi_heads, "mask_head", None)
        if not isinstance(head, RecurrentMaskHead):
            raise ValueError(
                "RecurrentPanopticFPN needs a recurrent mask head: set MODEL.MASK_ON True and "
                f"MODEL.ROI_MASK_HEAD.NAME 'RecurrentMaskHead' (got {type(head).__name__}), "
                "or MODEL.META_ARCHITECTURE 'PanopticFPN'"
            )

    @property
    def test_steps(self) -> int:
        """Cell evaluations in inference; may be set at any time."""
        head = self.roi_heads.mask_head
        return head.test_steps or head.recurrence.solver.steps

    @test_steps.setter
    def test_steps(self, steps: int) -> None:
        check_whole("RecurrentPanopticFPN", test_steps=steps)
        self.roi_heads.mask_head.test_steps = steps

    @property
    def solve_stats(self) -> SolveStats | None:
        """Statistics of the mask head's last run; None before the first."""
        return self.roi_heads.mask_head.recurrence.last_stats
