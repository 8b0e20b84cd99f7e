"""The revisions of the tables, run by `store.database.Database.upgrade`."""
