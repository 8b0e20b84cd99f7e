"""What Prometheus may ask: counts by state, read from SQL when asked. No label holds patient data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.registry import Collector
from sqlalchemy import func
from sqlmodel import Session, col, select

from store.database import Database
from store.model_tables import DriftAlarm
from store.tables import Association, Delivery, Event, Finding, Instance, Job, Prior, PriorSearch, Pull, Study


class Counts(Collector):
    """Counts the rows of the ledger at each scrape, so that nothing is lost or doubled by a restart."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Give nothing: registration must not ask the database."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield every family."""
        with self._database.reading() as session:
            yield _by_state(session, "nadir_studies", "Studies by state", Study.state)
            yield _by_state(session, "nadir_jobs", "Jobs by state", Job.state)
            yield _by_state(session, "nadir_pulls", "Studies that the PACS told of, by state", Pull.state)
            yield _by_state(
                session, "nadir_prior_searches", "Studies whose past is asked for", PriorSearch.state
            )
            yield _by_state(session, "nadir_priors", "Earlier studies found, by state", Prior.state)
            yield _by_state(session, "nadir_events", "Events by kind", Event.kind, label="kind")
            yield _deliveries(session)
            yield _by_state(
                session,
                "nadir_drift_alarms",
                "Alarms of drift, by analysis",
                DriftAlarm.plugin,
                label="plugin",
            )
            yield _total(session, "nadir_instances", "Instances held", Instance.id)
            yield _total(session, "nadir_findings", "Findings, superseded ones too", Finding.id)
            open_ones = select(func.count()).where(col(Association.closed_at).is_(None))
            yield GaugeMetricFamily(
                "nadir_open_associations",
                "DICOM associations not closed",
                value=session.exec(open_ones).one(),
            )


def registry(database: Database) -> CollectorRegistry:
    """Return a registry that counts what this database holds."""
    made = CollectorRegistry()
    made.register(Counts(database))
    return made


def text(of: CollectorRegistry) -> bytes:
    """Return the metrics in Prometheus' text format, as `CONTENT_TYPE` says. Raises `Unavailable`."""
    return generate_latest(of)


def _by_state(
    session: Session, name: str, help_text: str, column: Any, *, label: str = "state"
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, help_text, labels=[label])
    counted = col(column)
    for state, count in session.exec(select(counted, func.count()).group_by(counted)):
        family.add_metric([state], count)
    return family


def _deliveries(session: Session) -> GaugeMetricFamily:
    family = GaugeMetricFamily("nadir_deliveries", "Results to deliver", labels=["destination", "state"])
    destination, state = col(Delivery.destination), col(Delivery.state)
    for where, what, count in session.exec(
        select(destination, state, func.count()).group_by(destination, state)
    ):
        family.add_metric([where, what], count)
    return family


def _total(session: Session, name: str, help_text: str, column: Any) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, help_text, value=session.exec(select(func.count(col(column)))).one())


__all__ = ["CONTENT_TYPE", "Counts", "registry", "text"]
