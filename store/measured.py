"""The numbers of all patients as a table: chosen, counted, sorted and paged by SQL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement
from sqlmodel import Session, col, func, or_, select

from store.cohort_rows import CohortRow
from store.decided_sightings import Place, corrected_site, decided_sightings, is_rejected
from store.objects import ObjectStore
from store.patients import members_of
from store.sighting import Sighting
from store.sightings import COUNTING
from store.tables import Finding, Job, Measurement, Patient, Series, Study

Sort = Literal["newest", "patient", "date", "value", "-value"]
SHORTEST_HASH: Final = 12


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Which patients and which of their numbers are meant; None and empty choose all."""

    criteria: str = "recist1.1"
    """Whose verdicts `response` speaks of."""
    response: str = ""
    """Best overall response, `none` for those who have none yet."""
    analysis: str = ""
    """Name of the analysis."""
    made_by: str = ""
    """Analysis, version and model as `made_by` writes them."""
    modality: str = ""
    """Of the series that was measured."""
    site: str = ""
    """Organ, in words."""
    since: date | None = None
    """First Study Date."""
    until: date | None = None
    """Last Study Date."""
    least: int | None = None
    """Fewest lesions of a patient."""
    most: int | None = None
    """Most lesions of a patient."""
    name: str = ""
    """Our name of the number (`long_axis`)."""

    @property
    def of_findings(self) -> bool:
        """Return whether anything is asked of findings."""
        return bool(
            self.analysis
            or self.made_by
            or self.modality
            or self.site
            or self.since
            or self.until
            or self.name
        )


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One number with all that is known of it."""

    pk: int
    """Row of the measurement."""
    patient_pk: int
    """Row of the patient whose study it is of."""
    patient_id: str
    """PatientID."""
    issuer: str
    """IssuerOfPatientID, or empty."""
    study_instance_uid: str
    """Study Instance UID."""
    study_date: date | None
    """Study Date."""
    series_instance_uid: str
    """Series that was measured."""
    sop_instance_uid: str
    """Image on which the end points of a length lie; empty for other numbers."""
    modality: str
    """Of that series; empty when it is not known."""
    tracking_uid: str
    """The lesion, as the tracking wrote it."""
    label: str
    """What people call it."""
    type_scheme: str
    """Coding scheme of what it is."""
    type_value: str
    """Its code."""
    type_meaning: str
    """What it is, in words."""
    site_scheme: str
    """Coding scheme of the organ; empty when it is not known."""
    site_value: str
    """Its code."""
    site_meaning: str
    """The organ, in words."""
    laterality: str
    """Left or right; empty when it is not known."""
    confidence: float | None
    """0 to 1, of the analysis that found it."""
    automatic: bool
    """False when a person drew the region."""
    name: str
    """Our name."""
    concept_scheme: str
    """Coding scheme of what was measured."""
    concept_value: str
    """Its code."""
    concept_meaning: str
    """What was measured, in words."""
    derivation: str
    """Mean, maximum, ...; empty when it says nothing."""
    value: float
    """The number, in `unit`."""
    uncertainty: float | None
    """One standard deviation, in `unit`; None when it is not known."""
    unit: str
    """UCUM code."""
    method: str
    """The convention, in words."""
    plugin: str
    """Analysis."""
    plugin_version: str
    """Its version."""
    model_sha256: str
    """Hash of its model; empty when it has none."""
    rejected: bool = False
    """Whether people said that it is no lesion."""
    tracking_uid_now: str = ""
    """The lesion, as people relinked it."""
    site_now: str = ""
    """The organ in words, as people corrected it."""


COLUMNS: Final[tuple[Any, ...]] = (
    Measurement.id, Finding.patient_pk, Patient.patient_id, Patient.issuer, Study.study_instance_uid, Study.study_date,
    Finding.series_instance_uid, func.coalesce(Measurement.sop_instance_uid, ""), func.coalesce(Series.modality, ""),
    Finding.tracking_uid, Finding.label, Finding.type_scheme, Finding.type_value, Finding.type_meaning,
    func.coalesce(Finding.site_scheme, ""), func.coalesce(Finding.site_value, ""),
    func.coalesce(Finding.site_meaning, ""), func.coalesce(Finding.laterality_meaning, ""), Finding.confidence,
    Finding.automatic, Measurement.name, Measurement.concept_scheme, Measurement.concept_value,
    Measurement.concept_meaning, func.coalesce(Measurement.derivation_meaning, ""), Measurement.value,
    Measurement.uncertainty, Measurement.unit, Measurement.method, Measurement.plugin, Measurement.plugin_version,
    Measurement.model_sha256,
)  # fmt: skip
"""In the order of the fields of `Measured`, without those that tell what people decided."""
ORDER: Final[dict[str, tuple[Any, ...]]] = {
    "newest": (col(Measurement.id).desc(),),
    "patient": (col(Patient.issuer), col(Patient.patient_id), col(Measurement.id)),
    "date": (col(Study.study_date).desc(), col(Measurement.id).desc()),
    "value": (col(Measurement.value), col(Measurement.id)),
    "-value": (col(Measurement.value).desc(), col(Measurement.id)),
}


def count(session: Session, chosen: Chosen) -> int:
    """Return how many numbers are meant."""
    return int(session.exec(_from(session, chosen, func.count())).one())


def page(
    session: Session,
    chosen: Chosen,
    objects: ObjectStore | None = None,
    *,
    sort: Sort = "newest",
    limit: int = 50,
    offset: int = 0,
) -> tuple[Measured, ...]:
    """Return some of the numbers that are meant; `objects` as for the courses of whom people decided something."""
    statement = _from(session, chosen, Measurement.id).order_by(*ORDER[sort]).limit(limit).offset(offset)
    pks = [int(pk) for pk in session.exec(statement)]
    found = {one.pk: one for one in _with(session, pks, objects)}
    return tuple(found[pk] for pk in pks)


def before(
    session: Session, chosen: Chosen, pk: int | None, limit: int, objects: ObjectStore | None = None
) -> tuple[Measured, ...]:
    """Return the numbers that were written before a row, the newest first; the newest of all for None."""
    statement = _from(session, chosen, Measurement.id)
    if pk is not None:
        statement = statement.where(col(Measurement.id) < pk)
    pks = [int(one) for one in session.exec(statement.order_by(*ORDER["newest"]).limit(limit))]
    return _with(session, pks, objects)[::-1]


def stretch(
    session: Session, chosen: Chosen, first: int, last: int, objects: ObjectStore | None = None
) -> tuple[Measured, ...]:
    """Return the numbers that are meant among the rows from `first` to `last`, in their order."""
    statement = _from(session, chosen, Measurement.id).where(col(Measurement.id).between(first, last))
    return _with(session, [int(pk) for pk in session.exec(statement)], objects)


def whose(session: Session, chosen: Chosen) -> list[tuple[str, str]]:
    """Return IssuerOfPatientID and PatientID of everybody whose numbers are meant, sorted."""
    return sorted(
        (issuer, patient_id)
        for issuer, patient_id in session.exec(
            _from(session, chosen, Patient.issuer, Patient.patient_id).distinct()
        )
    )


def last_row(session: Session) -> int:
    """Return the number of the newest row; 0 when there is none."""
    return int(session.exec(select(func.max(Measurement.id))).one() or 0)


def patients_with(session: Session, chosen: Chosen) -> set[int]:
    """Return the persons of whom something is meant, by the rows that speak for them; all when nothing is asked."""
    heads = {pk: head for head, own in members_of(session).items() for pk in own}
    if not chosen.of_findings:
        return set(heads.values())
    statement = select(Finding.patient_pk).join(Job, col(Job.id) == col(Finding.job_pk))
    statement = statement.join(Study, col(Study.id) == col(Finding.study_pk))
    if chosen.modality:
        statement = statement.join(
            Series, col(Series.series_instance_uid) == col(Finding.series_instance_uid)
        )
    if chosen.name:
        statement = statement.join(Measurement, col(Measurement.finding_pk) == col(Finding.id))
    found = session.exec(statement.where(*_conditions(chosen)).distinct())
    return {heads[pk] for pk in found}


def first_dates(session: Session) -> dict[int, date]:
    """Return the first Study Date of each person, by every row that is this person."""
    statement = select(Study.patient_pk, func.min(Study.study_date)).where(col(Study.study_date).is_not(None))
    rows = session.exec(statement.group_by(col(Study.patient_pk)))
    first = {pk: on for pk, on in rows if on is not None}
    dates: dict[int, date] = {}
    for own in members_of(session).values():
        known = [first[pk] for pk in own if pk in first]
        if known:
            dates |= dict.fromkeys(own, min(known))
    return dates


@dataclass(frozen=True, kw_only=True)
class Offered:
    """What there is to choose from."""

    analyses: tuple[str, ...]
    """Analyses that found something."""
    made_by: tuple[str, ...]
    """The same with version and model."""
    modalities: tuple[str, ...]
    """Of the series that were measured."""
    sites: tuple[str, ...]
    """Organs."""
    names: tuple[str, ...]
    """Our names of numbers."""
    responses: tuple[str, ...]
    """Best overall responses by the criteria."""


def offered(session: Session, criteria: str) -> Offered:
    """Return what there is to choose from."""
    made = session.exec(
        select(Job.plugin, Job.plugin_version, Job.model_sha256)
        .where(col(Job.state).in_(COUNTING), col(Job.id).in_(select(Finding.job_pk)))
        .distinct()
    ).all()
    responses = select(CohortRow.best_overall).where(col(CohortRow.criteria) == criteria).distinct()
    series = select(Finding.series_instance_uid)
    modalities = select(Series.modality).where(col(Series.series_instance_uid).in_(series)).distinct()
    return Offered(
        analyses=tuple(sorted({plugin for plugin, _, _ in made})),
        made_by=tuple(sorted({made_by(*one) for one in made})),
        modalities=_words(session, modalities),
        sites=_words(session, select(Finding.site_meaning).distinct()),
        names=_words(session, select(Measurement.name).distinct()),
        responses=_words(session, responses),
    )


def made_by(plugin: str, version: str, model_sha256: str) -> str:
    """Return an analysis with its version and the first digits of its model's hash, with blanks between."""
    return " ".join(filter(None, (plugin, version, model_sha256[:SHORTEST_HASH])))


def _words(session: Session, statement: Any) -> tuple[str, ...]:
    return tuple(sorted(str(word) for word in session.exec(statement) if word))


def _from(session: Session, chosen: Chosen, *columns: Any) -> Any:
    """Return a statement over the numbers that are meant."""
    statement = (
        select(*columns)
        .select_from(Measurement)
        .join(Finding, col(Finding.id) == col(Measurement.finding_pk))
        .join(Job, col(Job.id) == col(Finding.job_pk))
        .join(Study, col(Study.id) == col(Finding.study_pk))
        .join(Patient, col(Patient.id) == col(Finding.patient_pk))
    )
    if chosen.modality:
        statement = statement.join(
            Series, col(Series.series_instance_uid) == col(Finding.series_instance_uid)
        )
    return statement.where(*_conditions(chosen), *_of_persons(session, chosen))


def _conditions(chosen: Chosen) -> Iterator[ColumnElement[bool]]:
    yield ~col(Finding.superseded)
    yield col(Job.state).in_(COUNTING)
    if chosen.analysis:
        yield col(Job.plugin) == chosen.analysis
    if chosen.made_by:
        yield _made_by(chosen.made_by)
    if chosen.modality:
        yield col(Series.modality) == chosen.modality
    if chosen.site:
        yield col(Finding.site_meaning) == chosen.site
    if chosen.since:
        yield col(Study.study_date) >= chosen.since
    if chosen.until:
        yield col(Study.study_date) <= chosen.until
    if chosen.name:
        yield col(Measurement.name) == chosen.name


def _made_by(said: str) -> ColumnElement[bool]:
    """Return the condition that `made_by` of a job is what is said."""
    short = func.substr(col(Job.model_sha256), 1, SHORTEST_HASH)
    plain = col(Job.plugin) + " " + col(Job.plugin_version)
    return or_((col(Job.model_sha256) == "") & (plain == said), plain + " " + short == said)


def _of_persons(session: Session, chosen: Chosen) -> Iterator[ColumnElement[bool]]:
    """Yield the condition on the persons, when anything is asked of them."""
    asked = list(of_rows(chosen))
    if len(asked) == 1:
        return
    heads = select(CohortRow.patient_pk).where(*asked)
    merged = {head: own[1:] for head, own in members_of(session).items() if len(own) > 1}
    matching = session.exec(heads.where(col(CohortRow.patient_pk).in_(list(merged)))).all() if merged else []
    others = [pk for head in matching for pk in merged[head]]
    yield or_(col(Finding.patient_pk).in_(heads), col(Finding.patient_pk).in_(others))


def of_rows(chosen: Chosen) -> Iterator[ColumnElement[bool]]:
    """Yield what is asked of a person's course in short."""
    yield col(CohortRow.criteria) == chosen.criteria
    if chosen.response:
        yield col(CohortRow.best_overall) == ("" if chosen.response == "none" else chosen.response)
    if chosen.least is not None:
        yield col(CohortRow.lesions) >= chosen.least
    if chosen.most is not None:
        yield col(CohortRow.lesions) <= chosen.most


def _with(session: Session, pks: Sequence[int], objects: ObjectStore | None) -> tuple[Measured, ...]:
    """Return these numbers with all that is known of them, in the order of the rows."""
    statement = (
        select(*COLUMNS)
        .select_from(Measurement)
        .join(Finding, col(Finding.id) == col(Measurement.finding_pk))
        .join(Study, col(Study.id) == col(Finding.study_pk))
        .join(Patient, col(Patient.id) == col(Finding.patient_pk))
        .join(Series, col(Series.series_instance_uid) == col(Finding.series_instance_uid), isouter=True)
        .where(col(Measurement.id).in_(pks))
        .order_by(col(Measurement.id))
    )
    names = list(Measured.__dataclass_fields__)[: len(COLUMNS)]
    found = [Measured(**dict(zip(names, row, strict=True))) for row in session.exec(statement)]
    decided = decided_sightings(session, {one.patient_pk for one in found}, objects)
    return tuple(_as_decided(one, decided) for one in found)


def _as_decided(one: Measured, decided: Mapping[Place, Sighting]) -> Measured:
    place = (one.plugin, one.study_instance_uid, one.series_instance_uid, one.tracking_uid)
    seen = decided.get(place)
    if seen is None:
        return replace(one, tracking_uid_now=one.tracking_uid, site_now=one.site_meaning)
    site = corrected_site(seen)
    return replace(
        one,
        rejected=is_rejected(seen),
        tracking_uid_now=seen.tracking_uid,
        site_now=one.site_meaning if site is None else site,
    )


__all__ = [
    "Chosen", "Measured", "Offered", "Sort", "before", "count", "first_dates", "last_row", "made_by", "of_rows",
    "offered", "page", "patients_with", "stretch", "whose",
]  # fmt: skip
