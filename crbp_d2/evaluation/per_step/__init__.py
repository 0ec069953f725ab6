"""Evaluation after each of many steps, from one run of the recurrence."""
