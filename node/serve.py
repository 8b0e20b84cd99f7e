"""The node as a running thing: the roles that were asked for, started in order and drained in reverse."""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.metadata import version

from sqlmodel import select

from node import audit_events, logs
from node.audit import audit_of, settings_hash
from node.expiry import Expiry
from node.heart import BEAT_SECONDS, Heart
from node.intake import Intake
from node.listener import Listener
from node.loop import Loop
from node.notify import notify
from node.opened import opened
from node.process import End, beginning, keep_one_heap, settle_down, tell
from node.receipts import Receipts
from node.reception import Door
from node.settings import Settings
from node.tls import certificate_files
from node.tls_renewed import calling_to, https, listening
from node.variables import foreign
from node.vitals import Vitals, VitalsServer
from plugins.errors import Refused
from store.keys import without_credentials
from store.tables import Event

ROLES = ("listener", "worker", "sender", "web", "scheduler")
STOP_SECONDS = 30.0
REFRESH_SECONDS = 60.0
EXPIRY_SECONDS = 3600.0

log = logging.getLogger(__name__)


class Node:
    """One process of a node, with some or all of the roles.

    Parameters
    ----------
    settings
        Of the whole node.
    roles
        `listener` receives, `worker` settles and analyses, `sender` delivers, `web` answers HTTP and pulls from
        the PACS, `scheduler` starts what comes again and again; all of them when empty.
    shares_port
        Whether other processes listen on the DICOM port too.

    """

    def __init__(self, settings: Settings, roles: Sequence[str] = (), *, shares_port: bool = False) -> None:
        self.settings = settings
        self.roles = tuple(roles) or ROLES
        for role in self.roles:
            if role not in ROLES:
                raise Refused("unknown-role", f"there is no role '{role}'; the roles are {', '.join(ROLES)}")
        self.database, self.objects = opened(settings)
        self.audit = audit_of(settings, self.database)
        self._told = (settings.ae_title, self.roles, settings_hash(settings, self.audit.patients.key))
        self._shares_port = shares_port
        self.vitals = Vitals(self.roles)
        self.dicom_port = settings.dicom_port
        self.http_port = settings.http_port
        self._loops: list[Loop] = []
        self._doors: list[Callable[[], object]] = []
        self._interrupts: list[Callable[[], None]] = []
        self._closings: list[Callable[[], None]] = []

    def start(self) -> None:
        """Start the roles; returns when every port answers. Raises `Unavailable` when a port is taken, or all threads.

        The loops begin when all ports are there: a node that cannot start touches no job.
        """
        with beginning(self.stop):
            self.audit.start()
            vitals = self._vitals_port() if self.settings.metrics_port and not self._shares_port else None
            for role in self.roles:
                getattr(self, f"_start_{role}")()
            if vitals is not None:
                vitals.start()
            if certificate_files(self.settings) and {"listener", "web"} & {*self.roles}:
                self._loop("expiry", Expiry(self.database, self.settings).tick, EXPIRY_SECONDS)
            heart = Heart(self.database, self.roles)
            self._closings.append(heart.close)
            self._loop("heart", heart.tick, BEAT_SECONDS)
            for loop in self._loops:
                loop.start()
            self.audit.record(audit_events.started(*self._told))

    def stop(self) -> None:
        """Give running jobs back to the queue, take nothing new, and finish what is being received or delivered.

        All of it happens even when a part fails; the first failure is raised at the end.
        """
        with ExitStack() as last_to_first:
            last_to_first.callback(self.database.dispose)
            last_to_first.callback(self.audit.stop)
            last_to_first.callback(self.audit.record, audit_events.stopped(*self._told))
            for closing in self._closings:
                last_to_first.callback(closing)
            for loop in self._loops:
                last_to_first.callback(loop.stop, STOP_SECONDS)
            for door in self._doors:
                last_to_first.callback(door)
            for loop in self._loops:
                last_to_first.callback(loop.stop, 0)
            for interrupt in self._interrupts:
                last_to_first.callback(interrupt)

    def _start_listener(self) -> None:
        from node.committer import Committer
        from node.reporters import Reporters

        s = self.settings
        tls = Door(port=s.tls_port, new_context=listening(s)) if s.tls_port else None
        if s.listener_processes > 1:
            self._start_listeners()
            return
        reporters = Reporters(self.database, s)
        listener = Listener(
            self.database,
            self.objects,
            ae_title=s.ae_title,
            host=s.dicom_host,
            port=s.dicom_port if s.plain_dicom else None,
            tls=tls,
            callers=s.callers,
            caller_certificates=s.caller_certificates,
            accept_any=s.accept_any,
            max_associations=s.max_associations,
            max_associations_per_address=s.max_associations_per_address,
            max_object_bytes=s.max_object_bytes,
            reserve_bytes=s.reserve_bytes,
            receive_path=s.receive_path,
            shares_port=self._shares_port,
            sync=s.sync,
            reporters=reporters,
            committers=Committer(self.database, self.objects, s.commitment_callers),
            audit=self.audit,
            answered=self.vitals.answered,
        )
        listener.start()
        self.dicom_port = listener.port
        self._doors.append(listener.drain)
        self._loop("reporters", reporters.tick, REFRESH_SECONDS)

    def _start_listeners(self) -> None:
        from node.listener_group import LOOK_SECONDS, ListenerGroup

        group = ListenerGroup(self.settings)
        self._doors.append(group.drain)
        self._loop("listeners", group.tick, LOOK_SECONDS)
        group.start()
        self.dicom_port = group.port

    def _start_worker(self) -> None:
        from node.analyses import Analyses
        from node.decisions import left
        from node.deliveries import key_of
        from node.settle import Settler
        from node.task import Identity
        from node.worker import Worker
        from plugins.registry import load_working

        s, loaded = self.settings, load_working(self.settings.plugins, self.settings.enabled)
        self._tell_broken(loaded.broken)
        identities = [Identity.of(plugin) for plugin in loaded.plugins]
        settler = Settler(
            self.database,
            identities,
            quiet_seconds=s.quiet_seconds,
            hard_cap_seconds=s.hard_cap_seconds,
            max_attempts=s.max_attempts,
            needs={p.name: n for p in loaded.plugins if (n := getattr(p, "needs", None))},
            prior_sources=tuple(map(key_of, s.prior_sources)),
            present=Analyses(s, identities).present,
            objects=self.objects,
            left=left(s),
            passed=time.monotonic,
        )
        self._loop("settler", lambda now: bool(settler.tick(now)), min(1.0, max(0.1, s.quiet_seconds / 4)))
        for number in range(s.workers):
            worker = Worker(self.database, self.objects, s, identities, owner=f"{_here()} worker {number}")
            self._interrupts.append(worker.interrupt)
            self._loop(f"worker {number}", worker.tick, 0.5)

    def _tell_broken(self, broken: Sequence[Refused]) -> None:
        """Say which analyses do not run, in the log and in an event; `nadir doctor` says it too."""
        with self.database.transaction() as session:
            for refused in broken:
                log.error(logs.line(refused.code, text=refused.sentence))
                session.add(Event(at=self.database.now(), kind=refused.code, text=refused.sentence))

    def _start_sender(self) -> None:
        from node.committer import Answerer
        from node.confirmer import Confirmer
        from node.deliveries import key_of
        from node.sender import Sender
        from node.unserved import LOOK_SECONDS, Unserved

        s = self.settings
        unserved = Unserved(self.database, map(key_of, s.destinations))
        self._loop("unserved", unserved.tick, LOOK_SECONDS)
        if s.commitment_callers:
            requestors = {text: calling_to(s, text) for text in s.commitment_callers}
            answerer = Answerer(self.database, self.objects, requestors, calling_ae=s.ae_title)
            self._loop("answerer", answerer.tick, 2.0)
        for destination in s.destinations:
            own = s.delivery_of(destination)
            tls = calling_to(s, destination)
            sender = Sender(
                self.database,
                self.objects,
                destination,
                settings=own,
                calling_ae=s.ae_title,
                tls=tls,
                audit=self.audit,
            )
            self._closings.append(sender.close)
            if taken := sender.take_over(self.database.now()):
                log.info(logs.line("deliveries-taken-over", destination=sender.destination, count=taken))
            self._loop(f"sender {sender.destination}", sender.tick, 0.5)
            if own.commitment != "off":
                confirmer = Confirmer.of(self.database, destination, own, calling_ae=s.ae_title, tls=tls)
                self._closings.append(confirmer.close)
                self._loop(f"confirmer {sender.destination}", confirmer.tick, 2.0)

    def _start_web(self) -> None:
        from node.uploads import Uploads
        from node.web import dashboard, dicom_web, stow
        from node.web.access import require_authentication
        from node.web.app import create_app
        from node.web.frame import frame_of
        from node.web.server import WebServer
        from node.web.site import Site

        s = self.settings
        intake = Intake(self.database, self.objects)
        self._fetch_priors(intake)
        if s.worklist.url:
            self._perform(intake)
        desk = Uploads(s, intake, self.audit.record)
        self._interrupts.append(desk.interrupt)
        self._loop("uploads", desk.tick, 1.0)
        told = self._pull(intake) if s.pacs_url else None
        require_authentication(s, self.database)
        imports = Receipts(self.audit, s.ae_title)
        site = Site(
            settings=s,
            database=self.database,
            objects=self.objects,
            frame=frame_of(s),
            record=self.audit.record,
        )
        routers = [stow.router(s, intake, imports, dicom_web.to_pacs(site)), *dashboard.routers(site)]
        made = create_app(
            s,
            self.database,
            told=told,
            routers=routers,
            record=site.record,
            frame=site.frame,
            vitals=self.vitals,
        )
        web = WebServer(made, s.http_host, s.http_port, tls=https(s))
        self._doors.append(web.stop)
        web.start()
        self.http_port = web.port

    def _vitals_port(self) -> VitalsServer:
        """Take the port of probes and metrics, before any sender may come; it answers when the others do."""
        s = self.settings

        def look() -> None:
            with self.database.reading() as session:
                session.exec(select(1)).one()

        server = VitalsServer(self.vitals, look, s.metrics_host, s.metrics_port)
        self._closings.append(server.stop)
        return server

    def _pull(self, intake: Intake) -> Callable[[], None]:
        """Fetch what the PACS tells of and what it holds besides; return what wakes that when it tells."""
        from node.pacs import DicomWeb
        from node.pull import Puller
        from node.reconcile import Reconciler

        s = self.settings
        dicomweb = DicomWeb(s.pacs_url, tls=calling_to(s, s.pacs_url))
        self._closings.append(dicomweb.close)
        receipts = Receipts(self.audit, s.ae_title, is_asked=True)
        puller = Puller(
            self.database, self.objects, intake, dicomweb, reserve_bytes=s.reserve_bytes, receipts=receipts
        )
        if s.reconcile_seconds:
            reconciler = Reconciler(self.database, dicomweb, days=s.reconcile_days)
            self._loop("reconciler", reconciler.tick, s.reconcile_seconds)
        return self._loop("puller", puller.tick, 2.0).wake

    def _perform(self, intake: Intake) -> None:
        """Do what a worklist of the PACS asks for."""
        from node.performing import Performing

        owner = f"{_here()} web"
        made = Performing(self.settings, self.database, self.objects, intake, owner=owner, audit=self.audit)
        self._closings.append(made.close)
        self._interrupts.append(made.interrupt)
        for name, tick, idle_seconds in made.ticks:
            self._loop(name, tick, idle_seconds)

    def _start_scheduler(self) -> None:
        from node.schedule import TICK_SECONDS, Schedule

        schedule = Schedule(self.database, self.settings, owner=f"{_here()} scheduler")
        self._interrupts.append(schedule.interrupt)
        self._closings.append(schedule.close)
        self._loop("scheduler", schedule.tick, TICK_SECONDS)

    def _fetch_priors(self, intake: Intake) -> None:
        """Fetch earlier studies, each source in a loop of its own: one that is dead holds no other up."""
        from node.prior_sources import open_source
        from node.priors import PriorFetcher, Wanted

        s = self.settings
        modalities = frozenset(s.priors_modalities)
        wanted = Wanted(studies=s.priors_max_studies, days=s.priors_days, modalities=modalities)
        for address in s.prior_sources:
            source = open_source(address, s, self.objects, tls=calling_to(s, address))
            receipts = Receipts(self.audit, s.ae_title, is_asked=True)
            fetcher = PriorFetcher(
                self.database,
                intake,
                source,
                wanted=wanted,
                receipts=receipts,
                analysed=s.priors_analysed,
                max_attempts=s.max_attempts,
            )
            self._closings.append(source.close)
            self._interrupts.append(fetcher.interrupt)
            self._loop(f"priors {source.name}", fetcher.tick, 1.0)

    def _loop(self, name: str, tick: Callable[..., bool], idle_seconds: float) -> Loop:
        loop = Loop(name, tick, self.database.now, idle_seconds)
        self._loops.append(loop)
        self.vitals.follow(loop)
        return loop


def serve(settings: Settings, roles: Sequence[str] = ()) -> None:
    """Run a node until SIGTERM, SIGINT or SIGHUP, then drain it; print one line when it is ready."""
    logs.configure(settings.log_level, form=settings.log_form)
    for name in foreign():
        log.warning(logs.line("no-setting", variable=name))
    keep_one_heap()
    end = End(signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    node = Node(settings, roles)
    started = time.monotonic()
    node.start()
    settle_down()
    tell(_ready_line(node, time.monotonic() - started))
    notify(os.environ, "READY=1")
    end.wait()
    log.info("draining")
    notify(os.environ, "STOPPING=1")
    node.stop()


def _ready_line(node: Node, seconds: float) -> str:
    s = node.settings
    parts = [f"nadir {version('nadir')} ready in {seconds:.1f} s", f"roles {','.join(node.roles)}"]
    if "listener" in node.roles:
        if s.plain_dicom:
            parts.append(f"DICOM {s.ae_title}@{s.dicom_host}:{node.dicom_port}")
        if s.tls_port:
            parts.append(f"DICOM TLS {s.ae_title}@{s.dicom_host}:{s.tls_port}")
    if "web" in node.roles:
        scheme = "http" if s.http_tls_certificate is None else "https"
        parts.append(f"{scheme}://{s.http_host}:{node.http_port}")
    parts.append(f"to {', '.join(map(without_credentials, s.destinations)) or 'no destination'}")
    parts.append(f"home {s.home}")
    return "; ".join(parts)


def _here() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"
