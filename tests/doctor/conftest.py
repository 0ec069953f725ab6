"""The hand-made panoptic set as a fixture."""

from helpers.panoptic_set import root

__all__ = ["root"]
