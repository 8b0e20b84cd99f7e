"""What Prometheus may ask of the whole node, whichever processes it has: read from SQL when asked.

No label holds patient data. What a single process knows of itself is in `node.vitals`.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.registry import Collector
from sqlmodel import Session

from node.settings import Settings
from node.tls import certificate_files, days_left
from plugins.errors import Refused
from store import tally
from store.database import Database
from store.jobs import STATES
from store.model_tables import DriftAlarm
from store.prior_tables import Prior, PriorSearch
from store.tables import Delivery, Event, Finding, Job, LesionLink, Pull, Study

FRESH_SECONDS = 5.0
log = logging.getLogger(__name__)


class Counts(Collector):
    """Asks SQL at each scrape, and the disk; several that scrape at one time share an answer of a few seconds.

    Parameters
    ----------
    database
        Of the node.
    settings
        Of them: where the disk is, and the certificates; nothing is told of either when None.

    """

    def __init__(self, database: Database, settings: Settings | None = None) -> None:
        self._database, self._settings = database, settings
        self._received, self._walk = tally.Received(), tally.AuditWalk()
        self._lock = threading.Lock()
        self._known: tuple[float, list[Metric]] | None = None

    def describe(self) -> Iterator[Metric]:
        """Give nothing: registration must not ask the database."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        with self._lock:
            if self._known is None or time.monotonic() - self._known[0] > FRESH_SECONDS:
                self._known = (time.monotonic(), list(self._ask()))
            return iter(self._known[1])

    def _ask(self) -> Iterator[Metric]:
        now = self._database.now()
        with self._database.reading() as session:
            yield from self._arrivals(session, now)
            yield from _jobs(session, now)
            yield from _made(session)
            yield from _deliveries(session, now)
            yield from _sources(session, now)
            yield from _models(session, now)
            yield from self._trail(session)
            yield _one("nadir_database_bytes", "Size of the database", tally.database_bytes(session))
        if self._settings is not None:
            yield from _disk(self._settings)
            yield from _certificates(self._settings, now)

    def _arrivals(self, session: Session, now: datetime) -> Iterator[Metric]:
        objects = CounterMetricFamily(
            "nadir_received_objects",
            "Objects that are kept; own: results of ours that came back",
            labels=["own"],
        )
        size = CounterMetricFamily("nadir_received_bytes", "Their bytes", labels=["own"])
        held = self._received.count(session)
        for own, (count, sum_bytes) in held.items():
            objects.add_metric([str(own).lower()], count)
            size.add_metric([str(own).lower()], sum_bytes)
        yield objects
        yield size
        yield _one("nadir_instances", "Instances held", sum(count for count, _ in held.values()))
        if last := tally.last_arrival(session):
            yield _one("nadir_last_arrival_timestamp_seconds", "When new content last came", last.timestamp())
        yield _counted(session, "nadir_studies", "Studies by state", state=Study.state)
        yield _counted(session, "nadir_events", "Events by kind", kind=Event.kind)
        is_open, ever = tally.associations(session, now)
        yield _one("nadir_open_associations", "DICOM associations not closed that brought something", is_open)
        yield _total("nadir_associations", "DICOM associations that brought something", ever)
        yield _spread(
            "nadir_settle_seconds",
            f"From the last image to a whole study, of the latest {tally.LATEST}",
            [((), tally.settle_seconds(session))],
        )

    def _trail(self, session: Session) -> Iterator[Metric]:
        records, unsent = tally.audit_unsent(session)
        yield _total("nadir_audit_records", "Messages in the audit trail", records)
        yield _by("nadir_audit_unsent", "Audit messages that a sink was not given yet", unsent, "sink")
        intact = self._walk.step(session)
        help_text = (
            "1 while each row looked at follows from the one before; walks the whole trail in the background"
        )
        yield _one("nadir_audit_intact", help_text, float(intact))


def registry(database: Database, settings: Settings | None = None) -> CollectorRegistry:
    """Return a registry that counts what this database holds, and looks at the disk of these settings."""
    made = CollectorRegistry()
    made.register(Counts(database, settings))
    return made


def text(of: CollectorRegistry) -> bytes:
    """Return the metrics in Prometheus' text format, as `CONTENT_TYPE` says. Raises `Unavailable`."""
    return generate_latest(of)


def _jobs(session: Session, now: datetime) -> Iterator[Metric]:
    rows = tally.grouped(session, Job.plugin, Job.state)
    by_state: dict[str, int] = {}
    by_plugin = GaugeMetricFamily(
        "nadir_analysis_jobs", "Jobs by analysis and state", labels=["plugin", "state"]
    )
    for plugin, state, count in rows:
        by_plugin.add_metric([plugin, state], count)
        by_state[state] = by_state.get(state, 0) + count
    # all states, always: an alert sees the first dead job only if there was a 0 before
    yield _by("nadir_jobs", "Jobs by state", dict.fromkeys(STATES, 0) | by_state, "state")
    yield by_plugin
    yield _one(
        "nadir_job_oldest_due_seconds", "How long the next job could have run", tally.oldest_due(session, now)
    )
    yield _one(
        "nadir_jobs_lease_overdue", "Running jobs whose worker is silent", tally.overdue_leases(session, now)
    )
    yield _spread(
        "nadir_job_run_seconds",
        f"How long the latest {tally.LATEST} jobs ran, delivery included",
        tally.run_seconds(session).items(),
        "plugin",
        "state",
    )


def _made(session: Session) -> Iterator[Metric]:
    found = dict(tally.grouped(session, Finding.superseded))
    yield _one("nadir_findings", "Findings, superseded ones too", sum(found.values()))
    yield _one("nadir_findings_current", "Findings of the newest revisions", found.get(False, 0))
    yield _counted(session, "nadir_lesion_links", "What became of lesions, by kind", kind=LesionLink.kind)
    made = tally.results(session)
    yield _by("nadir_results", "Objects made, by kind", {kind: count for kind, count, _ in made}, "kind")
    yield _by("nadir_result_bytes", "Their bytes", {kind: size for kind, _, size in made}, "kind")


def _deliveries(session: Session, now: datetime) -> Iterator[Metric]:
    yield _counted(
        session,
        "nadir_deliveries",
        "Results to deliver",
        destination=Delivery.destination,
        state=Delivery.state,
    )
    waiting, unconfirmed = tally.oldest_deliveries(session, now), tally.oldest_unconfirmed(session, now)
    where = "destination"
    yield _by(
        "nadir_delivery_oldest_seconds", "Age of the oldest result that is not delivered", waiting, where
    )
    yield _by("nadir_delivery_unconfirmed_seconds", "Longest wait to be confirmed", unconfirmed, where)
    yield _by(
        "nadir_delivery_resends", "Results sent again, not having been kept", tally.resends(session), where
    )
    yield _spread(
        "nadir_delivery_seconds",
        f"From made to delivered, of the latest {tally.LATEST}",
        [((name,), values) for name, values in tally.delivery_seconds(session).items()],
        where,
    )


def _sources(session: Session, now: datetime) -> Iterator[Metric]:
    yield _counted(session, "nadir_pulls", "Studies that the PACS told of, by state", state=Pull.state)
    yield _one("nadir_pull_oldest_seconds", "Longest wait to be pulled", tally.oldest_pull(session, now))
    yield _counted(
        session, "nadir_prior_searches", "Studies whose past is asked for", state=PriorSearch.state
    )
    yield _counted(session, "nadir_priors", "Earlier studies found, by state", state=Prior.state)


def _models(session: Session, now: datetime) -> Iterator[Metric]:
    yield _counted(session, "nadir_drift_alarms", "Alarms of drift, by analysis", plugin=DriftAlarm.plugin)
    last = {plugin: at.timestamp() for plugin, at in tally.last_drift(session).items()}
    yield _by("nadir_drift_last_alarm_timestamp_seconds", "When the last of them was", last, "plugin")
    runs = GaugeMetricFamily("nadir_training_runs", "Runs of retraining", labels=["family", "state"])
    for family, state, count in tally.training_runs(session):
        runs.add_metric([family, state], count)
    yield runs
    until, coming = tally.schedule(session)
    has_one = until is not None and until > now
    yield _one("nadir_scheduler_active", "1 while a scheduler holds the lease", float(has_one))
    yield _by("nadir_scheduled_timestamp_seconds", "When a scheduled job comes next", coming, "scheduled")


def _disk(settings: Settings) -> Iterator[Metric]:
    try:
        used = shutil.disk_usage(settings.home)
    except OSError:
        return
    yield _one("nadir_disk_free_bytes", "Free on the disk of the home folder", used.free)
    yield _one("nadir_disk_bytes", "Size of that disk", used.total)
    yield _one(
        "nadir_disk_reserve_bytes", "Free disk below which nothing is accepted", settings.reserve_bytes
    )


def _certificates(settings: Settings, now: datetime) -> Iterator[Metric]:
    days: dict[str, float] = {}
    for path in certificate_files(settings):
        try:
            days[str(path)] = days_left(path, now)
        except Refused as refused:
            log.warning("certificates: %s", refused)
    yield _by("nadir_certificate_days", "Days that are left to a certificate of the settings", days, "file")


def _counted(session: Session, name: str, help_text: str, **columns: object) -> GaugeMetricFamily:
    """Return how many rows there are of each combination of columns, named by their labels."""
    family = GaugeMetricFamily(name, help_text, labels=list(columns))
    for *labels, count in tally.grouped(session, *columns.values()):
        family.add_metric([str(label) for label in labels], count)
    return family


def _by(name: str, help_text: str, values: Mapping[str, float], label: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, help_text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _spread(
    name: str, help_text: str, values: Iterable[tuple[tuple[str, ...], Iterable[float]]], *labels: str
) -> Metric:
    """Return median and 95th percentile of each list; a summary without sum and count, which are not of all time."""
    family = Metric(name, help_text, "summary")
    for key, numbers in values:
        of = dict(zip(labels, key, strict=True))
        for quantile, value in tally.quantiles(numbers).items():
            family.add_sample(name, {**of, "quantile": str(quantile)}, value)
    return family


def _one(name: str, help_text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, help_text, value=value)


def _total(name: str, help_text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(name, help_text, value=value)


__all__ = ["CONTENT_TYPE", "Counts", "registry", "text"]
