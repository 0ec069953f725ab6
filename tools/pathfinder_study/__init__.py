"""The Pathfinder study: what is measured of a run, and what is drawn and judged from the records."""
