"""Removal of registered data sets."""

from detectron2.data import DatasetCatalog, MetadataCatalog


def free(*names: str) -> None:
    """Remove data sets from detectron2's catalogs, those of the names that are registered."""
    for name in names:
        if name in DatasetCatalog.list():
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
