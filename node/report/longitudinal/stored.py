"""Where the pictures of a report come from: the objects of a node, as plain values that cross into a child process."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlmodel import Session, col, select

from store.course import Course
from store.objects import ObjectStore
from store.tables import Instance, Series, Study

IMAGES = ("CT", "PT", "MR")


@dataclass(frozen=True, kw_only=True)
class ObjectFiles:
    """Images and SEGs of a course."""

    files: Mapping[str, str]
    """Path of each image by its SOP Instance UID, and of each SEG by its hash."""
    images: Mapping[str, Mapping[str, Sequence[str]]]
    """SOP Instance UIDs of the images of each study, by series."""

    def open_object(self, name: str) -> Path:
        """Return the file of an object. KeyError when it is not here."""
        return Path(self.files[name])

    def images_of(self, study_instance_uid: str) -> Mapping[str, Sequence[str]]:
        """Return the images of a study, by series."""
        return self.images.get(study_instance_uid, {})


def objects_of(session: Session, course: Course, objects: ObjectStore) -> ObjectFiles:
    """Return the objects of a course that the node knows; a file may be gone all the same."""
    uids = [visit.study_instance_uid for visit in course.visits]
    statement = (
        select(
            Study.study_instance_uid, Series.series_instance_uid, Instance.sop_instance_uid, Instance.sha256
        )
        .join(Series, col(Series.study_pk) == col(Study.id))
        .join(Instance, col(Instance.series_pk) == col(Series.id))
        .where(
            col(Study.study_instance_uid).in_(uids), col(Series.modality).in_(IMAGES), col(Instance.current)
        )
        .order_by(col(Instance.sop_instance_uid))
    )
    files = {s.seg_sha256: str(objects.path(s.seg_sha256)) for s in course.sightings if s.seg_sha256}
    images: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for study, series, instance, sha256 in session.exec(statement):
        files[instance] = str(objects.path(sha256))
        images[study][series].append(instance)
    return ObjectFiles(files=files, images={study: dict(series) for study, series in images.items()})


__all__ = ["ObjectFiles", "objects_of"]
