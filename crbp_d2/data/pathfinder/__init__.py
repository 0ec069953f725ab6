"""The Pathfinder task: stimuli, files, data sets, mapper."""
