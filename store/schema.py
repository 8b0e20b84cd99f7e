"""All tables: to import this module is to know every one of them, for migrations and copies of whole databases."""

from __future__ import annotations

from sqlalchemy import MetaData
from sqlmodel import SQLModel

import store.access_tables
import store.asked_runs
import store.audit_tables
import store.cohort_rows
import store.evaluations
import store.model_tables
import store.outside_people
import store.prior_tables
import store.processes
import store.tables
import store.upload_tables
import store.workitems  # noqa: F401 - each declares its tables

METADATA: MetaData = SQLModel.metadata

__all__ = ["METADATA"]
