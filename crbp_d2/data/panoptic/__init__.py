"""Panoptic data sets: loading, mapper, toy scenes."""
