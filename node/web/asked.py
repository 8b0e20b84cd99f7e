"""What may be asked below `/dicom-web`: a grammar of UIDs and a few fixed words (PS3.18 chapter 10)."""

from __future__ import annotations

import re
from dataclasses import dataclass

UID = r"(?=[0-9.]{1,64}(?:/|$))[0-9]+(?:\.[0-9]+)*"
ADDRESS = re.compile(
    r"(?:studies|series|instances"
    rf"|studies/(?P<study>{UID})(?:/(?P<of_study>series|instances|metadata|rendered|thumbnail))?"
    rf"|studies/(?P<study_2>{UID})/series/(?P<series_2>{UID})(?:/(?P<of_series>instances|metadata|rendered|thumbnail))?"
    rf"|studies/(?P<study_3>{UID})/series/(?P<series_3>{UID})/instances/(?P<sop>{UID})"
    r"(?:/(?P<of_sop>metadata|rendered|thumbnail|frames/[0-9]{1,9}(?:,[0-9]{1,9})*(?:/(?:rendered|thumbnail))?"
    r"|bulk(?:data)?(?:/[0-9A-Za-z_-]+)+))?)"
)
LISTS = frozenset({"series", "instances", "thumbnail"})


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What an address asks for."""

    path: str
    """Below the root, without a slash at either end."""
    study: str = ""
    """Study Instance UID; empty for a query over all studies."""
    series: str = ""
    """Series Instance UID; empty for all."""
    sop: str = ""
    """SOP Instance UID; empty for all."""
    what: str = ""
    """What of it: `metadata`, `frames/1`, `series`, ...; empty for the objects themselves."""

    @property
    def opens(self) -> bool:
        """Return whether the images of a study or what they tell of the patient are read, not only listed."""
        return bool(self.study) and self.what.rpartition("/")[2] not in LISTS


def asked(path: str) -> Asked | None:
    """Return what a path below `/dicom-web` asks for; None for anything but queries and retrieves of DICOMweb."""
    found = ADDRESS.fullmatch(path)
    if found is None:
        return None
    names = found.groupdict(default="")
    return Asked(
        path=path,
        study=names["study"] or names["study_2"] or names["study_3"],
        series=names["series_2"] or names["series_3"],
        sop=names["sop"],
        what=names["of_study"] or names["of_series"] or names["of_sop"] or ("" if "/" in path else path),
    )


__all__ = ["Asked", "asked"]
