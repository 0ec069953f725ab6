"""What the two hGRUs share.

N: batch; C: channels; H x W: image size.
"""

from collections.abc import Callable

from torch import Tensor, nn

from crbp_d2.layers.elementwise import elementwise

from .init import of_zeros


class HorizontalCell(nn.Module):
    """A cell whose drive is suppressed by a norm of one convolution, to S, and excites by that of another."""

    channels: int
    inhibition_norm: nn.Module
    excitation: nn.Module
    excitation_norm: nn.Module
    alpha: nn.Parameter
    mu: nn.Parameter
    # S as a function of h, norm(W_S ...), z, alpha and mu, element by element.
    _suppression: Callable[..., Tensor]

    def _suppressed(self, drive: Tensor, h: Tensor, inhibition: Tensor) -> Tensor:
        """S. drive: N x C x H x W; h, inhibition: of that shape, or of one that broadcasts to it."""
        return elementwise(self._suppression, (h, inhibition), (drive, self.alpha, self.mu))

    def _suppressed_of_zeros(self, drive: Tensor) -> Tensor:
        """S of a state of zeros."""
        inhibition = of_zeros(self.inhibition_norm, drive, self.channels)
        return self._suppressed(drive, drive.new_zeros(()), inhibition)

    def _excited_by(self, suppressed: Tensor) -> Tensor:
        """norm(W_F S)."""
        return self.excitation_norm(self.excitation(suppressed))
