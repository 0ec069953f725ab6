"""Measurements of what the package does; nothing here is needed to train."""
