"""Class counts of a config against those of a data set."""

from collections.abc import Iterator, Mapping

from detectron2.config import CfgNode

COUNTS = (
    ("MODEL.ROI_HEADS.NUM_CLASSES", "ROI_HEADS", "thing_classes"),
    ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "SEM_SEG_HEAD", "stuff_classes"),
)


def wrong_class_counts(cfg: CfgNode, metadata: Mapping) -> Iterator[tuple[str, str]]:
    """Each key whose count is not that of the data set with these metadata, and what is wrong with it."""
    for key, node, classes in COUNTS:
        count, given = len(metadata.get(classes, ())), cfg.MODEL[node].NUM_CLASSES
        if count and count != given:
            both = classes == "stuff_classes" and "thing_classes" in metadata
            note = " (the stuff classes and one for all things)" if both else ""
            yield key, f"is {given}, but the data set has {count}{note}"
