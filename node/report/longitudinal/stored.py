"""Where the pictures of a report come from: the objects of a node."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sqlmodel import Session, col, select

from node.report.longitudinal.lesion_pictures import Images, Open
from store.course import Course
from store.objects import ObjectStore
from store.tables import Instance, Series, Study

IMAGES = ("CT", "PT", "MR")


def objects_of(session: Session, course: Course, objects: ObjectStore) -> tuple[Open, Images]:
    """Return what opens the objects of a course, and what tells the images of its studies.

    The session is asked now and not again. What is opened may not be there: then opening raises KeyError.
    """
    uids = [visit.study_instance_uid for visit in course.visits]
    statement = (
        select(
            Study.study_instance_uid, Series.series_instance_uid, Instance.sop_instance_uid, Instance.sha256
        )
        .join(Series, col(Series.id) == col(Instance.series_pk))
        .join(Study, col(Study.id) == col(Series.study_pk))
        .where(
            col(Study.study_instance_uid).in_(uids), col(Series.modality).in_(IMAGES), col(Instance.current)
        )
        .order_by(col(Instance.sop_instance_uid))
    )
    names: dict[str, str] = {}
    images: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for study, series, instance, sha256 in session.exec(statement):
        names[instance] = sha256
        images[study][series].append(instance)
    found: dict[str, Mapping[str, Sequence[str]]] = {study: dict(series) for study, series in images.items()}
    path: Callable[[str], Path] = objects.path
    return (lambda name: path(names[name] if "." in name else name)), (lambda study: found.get(study, {}))


__all__ = ["objects_of"]
