"""detectron2's mapper for instances whose masks are polygons, run lengths or both."""

from detectron2.data import DatasetMapper


class InstanceDatasetMapper(DatasetMapper):
    """detectron2's DatasetMapper, which takes run-length masks as they are, whatever INPUT.MASK_FORMAT says.

    With INPUT.MASK_FORMAT "polygon", images that have any get BitMasks instead of PolygonMasks; detectron2's heads
    take both.
    """

    def _transform_annotations(self, dataset_dict: dict, transforms, image_shape) -> None:
        configured = self.instance_mask_format
        masks = [a.get("segmentation") for a in dataset_dict["annotations"] if not a.get("iscrowd", 0)]
        if any(isinstance(mask, dict) for mask in masks):
            self.instance_mask_format = "bitmask"
        try:
            super()._transform_annotations(dataset_dict, transforms, image_shape)
        finally:
            self.instance_mask_format = configured
