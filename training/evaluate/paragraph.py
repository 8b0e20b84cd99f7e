"""A paragraph whose scripts from right to left are drawn in their order, line by line."""

from __future__ import annotations

from typing import Any

from reportlab import platypus

from store.reading_order import begins_right, in_order, joined, turns


class Paragraph(platypus.Paragraph):  # type: ignore[misc]
    """A paragraph of the library, which itself draws letters as they are stored; a text from outside may be in any."""

    blPara: Any  # noqa: N815
    """The lines that the text was broken into, as the library names them."""

    def __init__(self, text: str | None, *given: Any, **more: Any) -> None:
        super().__init__(text, *given, **more)
        whole = "".join(getattr(part, "text", "") for part in self.frags) if text is not None else ""
        self.turned = turns(whole)
        self.from_right = begins_right(whole)
        if self.turned:
            for part in self.frags:
                part.text = joined(part.text)

    def split(self, *room: Any) -> list[platypus.Flowable]:
        """Return the parts for this page and the next one, read as the whole."""
        parts: list[platypus.Flowable] = super().split(*room)
        for part in parts:
            part.turned, part.from_right = self.turned, self.from_right
        return parts

    def draw(self) -> None:
        """Draw the lines; a line is put in order only here, since a table draws its head on every page."""
        if not self.turned:
            super().draw()
            return
        stored = self.blPara
        lines = [self._in_order(line) for line in stored.lines]
        self.blPara = stored.clone(lines=lines)
        try:
            super().draw()
        finally:
            self.blPara = stored

    def _in_order(self, line: Any) -> Any:
        if isinstance(line, tuple):
            return (line[0], in_order(" ".join(line[1]), self.from_right).split(" "))
        return line.clone(
            words=[part.clone(text=in_order(part.text, self.from_right)) for part in line.words]
        )


__all__ = ["Paragraph"]
