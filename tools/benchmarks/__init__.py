"""What the package costs: one measurement a file, each a section of a page."""
