"""Class counts of a config against those of a data set."""

from collections.abc import Iterator, Mapping

from detectron2.config import CfgNode

# key, node, metadata, models without such a head
COUNTS = (
    ("MODEL.ROI_HEADS.NUM_CLASSES", "ROI_HEADS", "thing_classes", ("SemanticSegmentor", "RetinaNet")),
    ("MODEL.RETINANET.NUM_CLASSES", "RETINANET", "thing_classes", ("SemanticSegmentor", "GeneralizedRCNN", "FPN")),
    ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "SEM_SEG_HEAD", "stuff_classes", ("GeneralizedRCNN", "RetinaNet")),
)


def wrong_class_counts(cfg: CfgNode, metadata: Mapping) -> Iterator[tuple[str, str]]:
    """Each key of the model's heads whose count is not that of the data set, by its metadata, and what is wrong."""
    for key, node, classes, without in COUNTS:
        if cfg.MODEL.META_ARCHITECTURE.endswith(without):
            continue
        count, given = len(metadata.get(classes, ())), cfg.MODEL[node].NUM_CLASSES
        if count and count != given:
            both = classes == "stuff_classes" and metadata[classes][0] == "things"
            note = " (the stuff classes and one for all things)" if both else ""
            yield key, f"is {given}, but the data set has {count}{note}"
