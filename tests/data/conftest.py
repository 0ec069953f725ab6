"""The hand-made set in a folder of its own, its names freed afterwards."""

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from helpers.panoptic_set import write_set


@pytest.fixture
def root(tmp_path):
    write_set(tmp_path)
    yield tmp_path
    for name in [n for n in DatasetCatalog.list() if n.startswith("tiny")]:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
