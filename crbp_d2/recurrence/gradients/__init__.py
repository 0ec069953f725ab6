"""How the result of a run is differentiated, one a file; the interface is `Gradient` in interfaces.py."""
