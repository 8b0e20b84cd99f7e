"""Run by alembic: the connection is handed over by `store.database`, there is no ini file."""

from __future__ import annotations

from alembic import context
from sqlmodel import SQLModel

import store.asked_runs
import store.cohort_rows
import store.model_tables
import store.outside_people
import store.processes
import store.upload_tables
import store.workitems  # noqa: F401  # the imports fill the metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    render_as_batch=True,
    transactional_ddl=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
