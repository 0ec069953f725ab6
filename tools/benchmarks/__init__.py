"""Measurements of the package's costs, one a file."""
