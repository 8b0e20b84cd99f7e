"""The published XML of LIDC-IDRI to a `Reading`.

Names are compared without namespace and case, since the files differ in both. A file is bounded in size and depth, and
one with a document type is refused, so that no entity is ever expanded.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from xml.parsers import expat

from plugins.errors import Absent, Refused
from training.curate.lidc_reading import (
    NON_NODULE,
    SMALL_NODULE,
    Annotation,
    Contour,
    PointMark,
    Ratings,
    Reading,
    ReadingSession,
)

ROOT = "lidcreadmessage"
LARGEST_BYTES = 32 << 20
DEEPEST = 32
SERIES = ("seriesinstanceuid", "ctseriesinstanceuid")
UID = re.compile(r"[0-9.]{1,64}")
LARGEST_INDEX = 1 << 16
LARGEST_RATING = 6
RATINGS = {one.name: one.name.replace("_", "") for one in fields(Ratings)}
"""Name of each rating, and that of its element."""


@dataclass(eq=False)
class _Element:
    name: str
    line: int
    words: list[str] = field(default_factory=list)
    children: list[_Element] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.words).strip()

    def all(self, *names: str) -> list[_Element]:
        return [child for child in self.children if child.name in names]


@dataclass(frozen=True)
class _File:
    """Reads the elements of one file; every refusal (`bad-lidc-xml`) names the file and the line."""

    path: Path

    def refuse(self, line: int, why: str) -> Refused:
        return Refused("bad-lidc-xml", f"{self.path.name}, line {line}: {why}", where=f"{self.path}:{line}")

    def only(self, parent: _Element, *names: str) -> _Element:
        found = parent.all(*names)
        if len(found) != 1:
            raise self.refuse(
                parent.line, f"{parent.name} has {len(found)} elements {names[0]} and needs one"
            )
        return found[0]

    def text(self, parent: _Element, *names: str, default: str = "") -> str:
        return self.only(parent, *names).text if parent.all(*names) else default

    def uid(self, parent: _Element, *names: str) -> str:
        found = self.only(parent, *names)
        if not UID.fullmatch(found.text):
            raise self.refuse(found.line, f"'{found.text[:80]}' is not a UID")
        return found.text

    def number(self, parent: _Element, name: str) -> float:
        found = self.only(parent, name)
        try:
            number = float(found.text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise self.refuse(found.line, f"{name} is '{found.text[:80]}', not a number")
        return number

    def whole(self, parent: _Element, name: str, largest: int) -> int:
        number = self.number(parent, name)
        if number != int(number) or not 0 <= number <= largest:
            found = self.only(parent, name)
            raise self.refuse(
                found.line, f"{name} is '{found.text[:80]}', not a whole number from 0 to {largest}"
            )
        return int(number)

    def point(self, parent: _Element) -> tuple[int, int]:
        return self.whole(parent, "xcoord", LARGEST_INDEX), self.whole(parent, "ycoord", LARGEST_INDEX)

    def contour(self, roi: _Element) -> Contour:
        inclusion = self.only(roi, "inclusion")
        if inclusion.text.upper() not in {"TRUE", "FALSE"}:
            raise self.refuse(inclusion.line, f"inclusion is '{inclusion.text[:80]}', not TRUE or FALSE")
        edges = roi.all("edgemap")
        if not edges:
            raise self.refuse(roi.line, "an outline has no points (edgeMap)")
        return Contour(
            sop_instance_uid=self.uid(roi, "imagesop_uid"),
            z_mm=self.number(roi, "imagezposition"),
            is_inclusion=inclusion.text.upper() == "TRUE",
            points=tuple(self.point(edge) for edge in edges),
        )

    def ratings(self, nodule: _Element) -> Ratings | None:
        """Return the ratings, 0 read as none given; None when there are none at all."""
        found: dict[str, int] = {}
        for element in nodule.all("characteristics")[:1]:
            for name, spelled in RATINGS.items():
                if element.all(spelled) and (rating := self.whole(element, spelled, LARGEST_RATING)):
                    found[name] = rating
        return Ratings(**found) if found else None

    def nodule(self, nodule: _Element) -> Annotation | list[PointMark]:
        """Return a nodule of 3 mm or more, or the points of a smaller one, which has no ratings and no outline."""
        name = self.text(nodule, "noduleid")
        contours = tuple(self.contour(roi) for roi in nodule.all("roi"))
        if not contours:
            raise self.refuse(nodule.line, f"nodule '{name[:80]}' has no outline (roi)")
        ratings = self.ratings(nodule)
        if ratings is not None or any(len(set(contour.points)) > 1 for contour in contours):
            return Annotation(nodule_id=name, ratings=ratings, contours=contours)
        return [
            PointMark(
                kind=SMALL_NODULE,
                mark_id=name,
                sop_instance_uid=contour.sop_instance_uid,
                z_mm=contour.z_mm,
                point=contour.points[0],
            )
            for contour in contours
        ]

    def non_nodule(self, element: _Element) -> list[PointMark]:
        if not element.all("locus"):
            raise self.refuse(element.line, "a nonNodule has no place (locus)")
        return [
            PointMark(
                kind=NON_NODULE,
                mark_id=self.text(element, "nonnoduleid"),
                sop_instance_uid=self.uid(element, "imagesop_uid"),
                z_mm=self.number(element, "imagezposition"),
                point=self.point(locus),
            )
            for locus in element.all("locus")
        ]

    def session(self, element: _Element) -> ReadingSession:
        nodules = [self.nodule(one) for one in element.all("unblindedreadnodule")]
        small = [mark for one in nodules if isinstance(one, list) for mark in one]
        others = [mark for one in element.all("nonnodule") for mark in self.non_nodule(one)]
        return ReadingSession(
            reader=self.text(element, "servicingradiologistid"),
            annotations=tuple(one for one in nodules if isinstance(one, Annotation)),
            marks=(*small, *others),
        )


def read_lidc_xml(path: Path) -> Reading:
    """Return what the readers said of one series.

    Refuses `bad-lidc-xml` with file and line; raises Absent (`not-lidc-ct`) for well-formed XML with another root, such
    as the chest X-ray readings (IdriReadMessage) that are published in the same bundle.
    """
    file = _File(path)
    root = _parse(file)
    if root.name != ROOT:
        raise Absent("not-lidc-ct", f"{path.name} is no reading of a CT (its root is {root.name})")
    header = file.only(root, "responseheader")
    sessions = root.all("readingsession")
    if not sessions:
        raise file.refuse(root.line, "there is no readingSession")
    return Reading(
        series_instance_uid=file.uid(header, *SERIES),
        study_instance_uid=file.uid(header, "studyinstanceuid") if header.all("studyinstanceuid") else "",
        sessions=tuple(file.session(element) for element in sessions),
    )


def _parse(file: _File) -> _Element:
    """Return the root element."""
    try:
        with file.path.open("rb") as stream:
            data = stream.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise Refused("bad-lidc-xml", f"{file.path} cannot be read: {error.strerror or error}") from error
    if len(data) > LARGEST_BYTES:
        raise Refused("bad-lidc-xml", f"{file.path.name} is larger than {LARGEST_BYTES >> 20} MiB")
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    top = _Element("", 0)
    opened = [top]

    def start(name: str, _attributes: dict[str, str]) -> None:
        if len(opened) > DEEPEST:
            raise file.refuse(parser.CurrentLineNumber, f"elements are nested more than {DEEPEST} deep")
        element = _Element(name.rpartition(" ")[2].lower(), parser.CurrentLineNumber)
        opened[-1].children.append(element)
        opened.append(element)

    def end(_name: str) -> None:
        opened.pop()

    def doctype(*_: object) -> None:
        raise file.refuse(parser.CurrentLineNumber, "it has a document type, which these files do not")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = lambda words: opened[-1].words.append(words)
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise file.refuse(error.lineno, f"it is not well-formed ({expat.ErrorString(error.code)})") from error
    except (LookupError, ValueError) as error:
        raise file.refuse(1, "its encoding is not known") from error
    return top.children[0]


__all__ = ["read_lidc_xml"]
