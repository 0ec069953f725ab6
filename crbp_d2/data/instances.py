"""detectron2's mapper for instances whose masks are polygons, run lengths or both."""

from detectron2.data import DatasetMapper


class InstanceDatasetMapper(DatasetMapper):
    """detectron2's DatasetMapper, which takes run-length masks as they are, whatever INPUT.MASK_FORMAT says.

    With INPUT.MASK_FORMAT "polygon", images that have any get BitMasks instead of PolygonMasks; detectron2's heads
    take both.

    Raises (when called):
        ValueError: masks are trained on (MODEL.MASK_ON), but an instance has a box alone.
    """

    def _transform_annotations(self, dataset_dict: dict, transforms, image_shape) -> None:
        configured = self.instance_mask_format
        masks = [a.get("segmentation") for a in dataset_dict["annotations"] if not a.get("iscrowd", 0)]
        if self.use_instance_mask and None in masks:
            raise ValueError(
                f"{dataset_dict['file_name']} has an instance without `segmentation`, but MODEL.MASK_ON is True; set "
                "it to False to train on boxes alone"
            )
        if any(isinstance(mask, dict) for mask in masks):
            self.instance_mask_format = "bitmask"
        try:
            super()._transform_annotations(dataset_dict, transforms, image_shape)
        finally:
            self.instance_mask_format = configured
