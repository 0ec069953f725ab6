"""Solvers: how the steps of a recurrence are run, forward and in the transposed problem; one a file."""
