"""The course of a patient's disease for people and programs: a page, a document, JSON and CSV with the same numbers."""
