"""What people drew or approved of a patient's lesions: the masks that a model may learn from.

A label is what a person drew (a region that somebody sent under the Tracking UID of a lesion of the patient, with other
voxels than Nadir's) or approved by a choice. What Nadir drew never is one by itself, under whatever UIDs it comes back.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Origin = Literal["corrected", "approved", "drawn"]


@dataclass(frozen=True, kw_only=True)
class Label:
    """One mask of one lesion at one visit, by a person."""

    patient_pk: int
    """Row of the patient that speaks for all rows of the person."""
    patient_key: str
    """What stands for that patient (`store.patient_key`)."""
    study_instance_uid: str
    """Study."""
    series_instance_uid: str
    """Series of the images that it lies on."""
    modality: str
    """Modality of that series."""
    sop_instance_uid: str
    """The SEG or RTSTRUCT that holds the mask."""
    sha256: str
    """Object store name of that object."""
    number: int
    """Segment or ROI number in it."""
    tracking_uid: str
    """The lesion, as the course calls it now."""
    origin: Origin
    """corrected: drawn anew, or drawn where Nadir missed it at this visit; approved: what Nadir drew, as it is;
    drawn: a lesion that Nadir did not know."""
    author: str
    """Who, in words for people."""
    at: datetime
    """When it came here, or was approved; aware UTC."""
    plugin: str
    """Analysis that found the lesion; empty when none did."""
    model_sha256: str
    """Hash of its model; empty when it is not known."""


@dataclass(frozen=True, kw_only=True)
class Left:
    """Something that a person drew or approved and that is no label."""

    sop_instance_uid: str
    """The object; empty when none is here."""
    sentence: str
    """Why, for people; names no patient."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """What stands now."""

    labels: tuple[Label, ...]
    """By patient, study, series, lesion and region."""
    left: tuple[Left, ...]
    """What was left out."""
