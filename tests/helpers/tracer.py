"""Files that a call enters, functions that it calls, and objects that it constructs."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers.paths import ROOT

PACKAGE = f"{ROOT / 'crbp_d2'}/"


class Trace:
    """files: paths in the package that were entered; calls: how often each function ran, by "file:name"; built: how
    often a constructor of a class ran, by "file:class"."""

    def __init__(self):
        self.files: set[str] = set()
        self.calls: Counter[str] = Counter()
        self.built: Counter[str] = Counter()

    def see(self, frame, event: str, _) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(PACKAGE) or code.co_name == "<module>":
            return
        file = str(Path(code.co_filename).relative_to(PACKAGE))
        self.files.add(file)
        self.calls[f"{file}:{code.co_name}"] += 1
        if code.co_name == "__init__" and "self" in frame.f_locals:
            # A constructor of a base class counts for the class of the object, once.
            kind = type(frame.f_locals["self"])
            if kind.__init__.__code__ is code:
                self.built[f"{file}:{kind.__name__}"] += 1


@contextmanager
def traced() -> Iterator[Trace]:
    """Trace the calls within the block, in this thread."""
    trace, before = Trace(), sys.getprofile()
    sys.setprofile(trace.see)
    try:
        yield trace
    finally:
        sys.setprofile(before)
