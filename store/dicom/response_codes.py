"""The codes of a report on response: time points, criteria and verdicts.

Standard ones are of PS3.16 (CID 6143 to 6147, TID 1502) and of the NCI Thesaurus, which CDISC names the verdicts by;
words of criteria that neither has are private.
"""

from __future__ import annotations

from typing import Final

from pydicom.sr.coding import Code

from plugins.codes import PRIVATE_SCHEME

# Time points (TID 1502, CID 6146)
SUBJECT_TIME_POINT: Final = Code("126070", "DCM", "Subject Time Point Identifier")
TIME_POINT_ORDER: Final = Code("126073", "DCM", "Time Point Order")
TIME_OFFSET: Final = Code("128740", "DCM", "Longitudinal Temporal Offset from Event")
TIME_POINT_NUMBERS: Final = (TIME_POINT_ORDER, TIME_OFFSET)
"""Numbers of a group that say when, not how large."""
BASELINE: Final = Code("C1442488", "UMLS", "Baseline")
POSTTREATMENT: Final = Code("126074", "DCM", "Posttreatment")
BASELINE_EVENT: Final = Code("121079", "DCM", "Baseline")
DAY: Final = Code("d", "UCUM", "day")

# What is said of the response
RESPONSE_EVALUATION: Final = Code("112020", "DCM", "Response Evaluation")
EVALUATION_METHOD: Final = Code("112021", "DCM", "Response Evaluation Method")
CURRENT_RESPONSE: Final = Code("112048", "DCM", "Current Response")
BEST_RESPONSE: Final = Code("112049", "DCM", "Best Overall Response")
MEASUREMENT_OF_RESPONSE: Final = Code("112051", "DCM", "Measurement of Response")
TOTAL: Final = Code("255619001", "SCT", "Total")
ROLE: Final = Code("LESIONROLE", PRIVATE_SCHEME, "Role of the lesion in the response criteria")
STATUS: Final = Code("LESIONSTATUS", PRIVATE_SCHEME, "What was seen of the lesion at this time point")

CRITERIA: Final[dict[str, Code]] = {
    "recist1.1": Code("126081", "DCM", "RECIST 1.1"),
    "who": Code("112029", "DCM", "WHO"),
    "irecist": Code("IRECIST", PRIVATE_SCHEME, "iRECIST"),
    "percist": Code("PERCIST", PRIVATE_SCHEME, "PERCIST 1.0"),
    "lugano": Code("LUGANO", PRIVATE_SCHEME, "Lugano classification"),
    "volume": Code("VOLUMETRIC", PRIVATE_SCHEME, "Volumetric response"),
}
"""How a response was judged (CID 6147)."""

OVERALL: Final[dict[str, Code]] = {
    "CR": Code("C4870", "NCIt", "Complete Response"),
    "PR": Code("C18058", "NCIt", "Partial Response"),
    "SD": Code("C18213", "NCIt", "Stable Disease"),
    "PD": Code("C35571", "NCIt", "Progressive Disease"),
    "NE": Code("C62222", "NCIt", "Not Evaluable"),
}
"""Verdicts of the NCI Thesaurus; what it lacks is private, by its own word."""

TARGET: Final[dict[str, Code]] = {
    "CR": Code("112041", "DCM", "Target Lesion Complete Response"),
    "PR": Code("112042", "DCM", "Target Lesion Partial Response"),
    "PD": Code("112043", "DCM", "Target Lesion Progressive Disease"),
    "SD": Code("112044", "DCM", "Target Lesion Stable Disease"),
}
NON_TARGET: Final[dict[str, Code]] = {
    "CR": Code("112045", "DCM", "Non-Target Lesion Complete Response"),
    "NON-CR/NON-PD": Code("112046", "DCM", "Non-Target Lesion Incomplete Response or Stable Disease"),
    "PD": Code("112047", "DCM", "Non-Target Lesion Progressive Disease"),
}
"""Responses of the lesions alone (CID 6143)."""

ROLES: Final[dict[str, Code]] = {
    "target": Code("112074", "DCM", "Target Lesion at Baseline"),
    "non-target": Code("112075", "DCM", "Non-Target Lesion at Baseline"),
    "new": Code("112076", "DCM", "Non-Lesion at Baseline"),
}
"""What a lesion was at the baseline (CID 6145)."""


def verdict(word: str) -> Code:
    """Return the code of a verdict; a private one with the word itself where no standard has it."""
    return OVERALL.get(word) or Code(word, PRIVATE_SCHEME, word)


__all__ = [
    "BASELINE",
    "BASELINE_EVENT",
    "BEST_RESPONSE",
    "CRITERIA",
    "CURRENT_RESPONSE",
    "DAY",
    "EVALUATION_METHOD",
    "MEASUREMENT_OF_RESPONSE",
    "NON_TARGET",
    "POSTTREATMENT",
    "RESPONSE_EVALUATION",
    "ROLE",
    "ROLES",
    "STATUS",
    "SUBJECT_TIME_POINT",
    "TARGET",
    "TIME_POINT_NUMBERS",
    "TOTAL",
    "verdict",
]
