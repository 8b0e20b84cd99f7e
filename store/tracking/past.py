"""What an analysis is told of its patient's past, as plain values that cross a process border."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SeriesFiles:
    """One image series."""

    series_instance_uid: str
    """Series Instance UID."""
    files: tuple[str, ...]
    """Its Part 10 files."""


@dataclass(frozen=True, kw_only=True)
class EarlierResults:
    """What is kept of one study of the patient."""

    study_instance_uid: str
    """Study Instance UID."""
    study_date: str
    """Study Date, ISO 8601."""
    segmentations: tuple[str, ...]
    """Files of the SEGs that Nadir made of it; those of other analyses may be among them."""
    images: tuple[SeriesFiles, ...] = ()
    """Its series that hold images."""


@dataclass(frozen=True, kw_only=True)
class Named:
    """An identity that a lesion or region of the patient has."""

    tracking_uid: str
    """Tracking UID."""
    tracking_identifier: str
    """Tracking ID."""
    before_uid: str = ""
    """Tracking UID that it would have without a person's relink; empty where nobody relinked it."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """What an earlier analysis of the same study said of a lesion."""

    tracking_uid: str
    """The lesion."""
    study_instance_uid: str
    """The study that it was compared with; empty when there was none."""
    confidence: float
    """0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Relinked:
    """A person's word that one lesion is another."""

    tracking_uid: str
    """As it is written."""
    study_instance_uid: str
    """In this study."""
    other_uid: str
    """The lesion that it is."""
    before_uid: str
    """As it would be written without a person's relink."""
    is_decided: bool
    """True when a person spoke of this drawing, False when it follows another one."""


@dataclass(frozen=True, kw_only=True)
class Past:
    """What is known of the patient from other times; all empty for a first study."""

    earlier: tuple[EarlierResults, ...] = ()
    """Studies of earlier dates, the newest first."""
    later: tuple[EarlierResults, ...] = ()
    """Studies of later dates that were analysed before this one, the nearest first."""
    same: EarlierResults | None = None
    """What the analysis last made of this study, when it was analysed before."""
    said: tuple[Said, ...] = ()
    """Of the lesions of `same`."""
    before: EarlierResults | None = None
    """What it made of this study before that, of nobody else's lesions, where `same` has some of a parted patient."""
    has_news: bool = False
    """True when something of an earlier date came after `same` was made."""
    names: tuple[Named, ...] = ()
    """Every identity that the analysis gave in the patient, also in studies that are not listed here."""
    others: tuple[str, ...] = ()
    """Tracking UIDs that other analyses gave in the patient."""
    strangers: tuple[str, ...] = ()
    """Tracking UIDs of others: that lesions of this study had while it was another patient's, and of patients who were
    merged with this one and parted again. Those that are among `names` all the same came with a source."""
    relinked: tuple[Relinked, ...] = ()
    """What people said of who is who."""
    rejected: tuple[str, ...] = ()
    """Lesions that people called none."""
    lacking: int = 0
    """How many searches and earlier studies were asked for and are not here."""

    @property
    def is_empty(self) -> bool:
        """Return True when there is nothing that a study could be laid beside."""
        return not (self.earlier or self.later or self.same or self.lacking)


__all__ = ["EarlierResults", "Named", "Past", "Relinked", "Said", "SeriesFiles"]
