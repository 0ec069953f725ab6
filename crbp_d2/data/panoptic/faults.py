"""Faults of panoptic and instance data sets, one row each."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from tabulate import tabulate

# kind -> harmless: training and evaluation here work all the same, nothing wrong is learned; other programs may fail.
KINDS = {
    # the JSON
    "json": False,
    "detection-json": False,
    "missing-key": False,
    "value": False,
    "duplicate-category": False,
    "category-unlisted": False,
    "category-tables": False,
    "class-count": False,
    "duplicate-image": False,
    "duplicate-annotation": False,
    "annotation-without-image": False,
    "duplicate-segment": False,
    "segment-id": False,
    "file-name": False,
    "string-id": True,
    "derived-key": True,
    "image-without-annotation": True,
    "same-file-name": True,
    # the files
    "missing-file": False,
    "unreadable": False,
    "size": False,
    "png-format": False,
    "orientation": False,
    "bits": False,
    "channels": True,
    "segments": False,
    "area": True,
    "box": True,
    # instances, also those of a panoptic set
    "instances": False,
    "no-mask": True,
}
# Rows of one kind, file and key that are kept; the others are counted.
MOST_ROWS = 20


@dataclass(frozen=True)
class Fault:
    """One fault.

    kind: str, one of KINDS.
    file: str, path of the JSON, PNG or image.
    image: the image's id, or "".
    key: str, place in the JSON, for instance "annotations[].segments_info[].area".
    value: str, value found, and the one expected.
    """

    kind: str
    file: str
    image: object
    key: str
    value: str

    @property
    def harmless(self) -> bool:
        """True if training and evaluation are right in spite of it."""
        return KINDS[self.kind]

    def __str__(self) -> str:
        image = "" if self.image == "" else f" (image {self.image!r})"
        return " ".join(f"{self.file}{image}: {self.key}: {self.value}".split())


class DatasetError(ValueError):
    """A data set that must not be trained on; `faults` lists the reasons."""

    def __init__(self, faults: list[Fault]):
        self.faults = faults
        more = f"; and {len(faults) - 1} more; run crbp-check-dataset for the full list" if len(faults) > 1 else ""
        super().__init__(f"{faults[0]}{more}")


class MissingFilesError(DatasetError, FileNotFoundError):
    """The JSON names files that do not exist."""


class Faults:
    """Collects faults, first of one file; keeps MOST_ROWS of each kind and key and counts the others."""

    def __init__(self, file: str):
        self.file = file
        self._rows: dict[tuple, list[Fault]] = {}
        self._more: dict[tuple, int] = {}

    def add(self, kind: str, key: str, value: str, image: object = "") -> None:
        self.extend([Fault(kind, self.file, image, key, value)])

    def extend(self, faults: Iterable[Fault]) -> None:
        for fault in faults:
            group = fault.kind, fault.key
            rows = self._rows.setdefault(group, [])
            if len(rows) < MOST_ROWS:
                rows.append(fault)
            else:
                self._more[group] = self._more.get(group, 0) + 1

    def raise_harmful(self) -> None:
        """Raise a DatasetError with the faults that are not harmless, if any."""
        if harmful := [fault for fault in self if not fault.harmless]:
            missing = all(fault.kind == "missing-file" for fault in harmful)
            raise (MissingFilesError if missing else DatasetError)(harmful)

    def __iter__(self) -> Iterator[Fault]:
        for group, rows in self._rows.items():
            yield from rows
            if group in self._more:
                yield replace(rows[-1], image="", file=self.file, value=f"and {self._more[group]:,} more like these")


def fault_table(faults: Iterable[Fault]) -> str:
    """A table with a row for each fault."""
    rows = [(f.kind, f.file, "" if f.image == "" else repr(f.image), f.key, " ".join(f.value.split())) for f in faults]
    return tabulate(rows, headers=("fault", "file", "image", "key", "value"), tablefmt="plain", disable_numparse=True)
