"""Where things are: the addresses of pages, for templates and reports alike."""

from __future__ import annotations

from urllib.parse import quote, urlencode


def study(study_instance_uid: str) -> str:
    """Return the address of a study's page."""
    return f"/studies/{quote(study_instance_uid, safe='')}"


def finding(study_instance_uid: str, finding_pk: int) -> str:
    """Return the address of a finding on its study's page."""
    return f"{study(study_instance_uid)}#finding-{finding_pk}"


def picture(study_instance_uid: str, finding_pk: int, view: str = "near") -> str:
    """Return the address of a picture of a finding: `near` by, or the `whole` slice."""
    return f"{study(study_instance_uid)}/findings/{finding_pk}/picture?view={view}"


def result(study_instance_uid: str, result_pk: int) -> str:
    """Return the address of an object that was written of a study."""
    return f"{study(study_instance_uid)}/results/{result_pk}"


def patient(patient_pk: int) -> str:
    """Return the address of a patient's page: by the number of the row, since addresses end up in logs."""
    return f"/patients/{patient_pk}"


def model(family: str, number: int | str | None = None) -> str:
    """Return the address of a family's page, or of one of its models."""
    return f"/models/{quote(family, safe='')}" + ("" if number is None else f"/{number}")


def viewer(study_instance_uid: str, series_instance_uid: str = "", sop_instance_uid: str = "") -> str:
    """Return the address of a study in the viewer, at the image of a lesion when one is given."""
    asked = {"StudyInstanceUIDs": study_instance_uid}
    if series_instance_uid:
        asked["initialSeriesInstanceUID"] = series_instance_uid
    if sop_instance_uid:
        asked["initialSOPInstanceUID"] = sop_instance_uid
    return f"/viewer/viewer?{urlencode(asked)}"


__all__ = ["finding", "model", "patient", "picture", "result", "study", "viewer"]
