"""Tables of named choices, open to rows of the user's own."""

from typing import Generic, TypeVar

from .errors import SettingError

Row = TypeVar("Row")


class Table(dict[str, Row], Generic[Row]):
    """A dict from names to rows that knows what it holds.

    Args:
        kind: what a row is, for messages, for instance "learning rule"; an unknown name raises a SettingError of it.
        rows: the rows to begin with.
    """

    def __init__(self, kind: str, rows: dict[str, Row]):
        super().__init__(rows)
        self.kind = kind

    def add(self, name: str, row: Row) -> Row:
        """Add a row and return it.

        Raises:
            ValueError: the name is taken.
        """
        if name in self:
            raise ValueError(f"a {self.kind} named {name!r} exists already")
        self[name] = row
        return row

    def __getitem__(self, name: str) -> Row:
        if not isinstance(name, str):
            raise SettingError(self.kind, name, sorted(self))
        return super().__getitem__(name)

    def __missing__(self, name: str) -> Row:
        raise SettingError(self.kind, name, sorted(self))
