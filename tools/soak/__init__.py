"""Soak tests: `python -m tools.soak kills --count 100 --seed 0`, and one more subject a file."""
