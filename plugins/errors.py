"""The tree of errors, divided by what the caller can do.

::

    NadirError
    ├── Refused       the input cannot be used; the same input will be refused again
    │   └── Absent    the input is in order and does not show what was looked for
    ├── Unavailable   something outside did not answer; the same call may succeed later
    └── Broken        a fault of our own; stop and tell a person

Every room raises these and no other error of its own across a room's border, but for `OffContract`: where a foreign
analysis makes its values it is a ValueError like any other, and the node tells it as that analysis's fault.
"""

from __future__ import annotations


class NadirError(Exception):
    """An error that Nadir raises on purpose; its text is one sentence that says what to do."""


class Refused(NadirError):
    """The input cannot be used. `code` is a lower-case word with hyphens, `sentence` is for people."""

    def __init__(self, code: str, sentence: str, *, where: str | None = None) -> None:
        super().__init__(f"{code}: {sentence}")
        self.code = code
        self.sentence = sentence
        self.where = where

    def __reduce__(self) -> tuple[object, ...]:
        return (_refused, (type(self), self.code, self.sentence, self.where))


def _refused(kind: type[Refused], code: str, sentence: str, where: str | None) -> Refused:
    return kind(code, sentence, where=where)


class Absent(Refused):
    """The input is in order and does not show what the analysis looks at: no lungs in a CT of the head. No fault."""


class Unavailable(NadirError):
    """Something outside did not answer; try again later. `outside` is for who may not know where it is."""

    def __init__(self, sentence: str = "", *, outside: str = "") -> None:
        super().__init__(sentence)
        self.outside = outside or sentence


class Broken(NadirError):
    """A fault of our own; retrying will not help."""


class OffContract(ValueError):
    """A value that an analysis gives is not what the contract says; its sentence quotes nothing of a patient."""
