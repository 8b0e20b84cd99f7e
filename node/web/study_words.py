"""What the page of a study says in words: where it and its results stand, how sure a number is, what was decided."""

from __future__ import annotations

from store.finding_view import FindingView
from store.lesions import BY_HAND, FIRST_SEEN, PROPOSAL, UNCONFIRMED
from store.measurement_view import MeasurementView
from store.sighting import Decision
from store.study_view import AnalysisView

KINDS = {
    "seg": "Segmentation (SEG)",
    "sr-volumetric": "Report by segments (SR)",
    "sr-planar": "Report by regions on images (SR)",
    "capture": "Key image",
    "pdf": "Report (PDF)",
    "sr-response": "Report on response (SR)",
    "pdf-response": "Report on response (PDF)",
}
LINKS = {
    "same": ("same lesion", "run"),
    "cut-by-field-of-view": ("cut by the end of the scan", "wait"),
    "new": ("new", "wait"),
    "re-segmented": ("redrawn", "wait"),
    "split": ("split", "wait"),
    "merged": ("grown together", "wait"),
    "disappeared": ("gone", "plain"),
    "outside-field-of-view": ("outside of the images", "plain"),
    "visible-not-segmented": ("seen, not drawn", "wait"),
}
"""What the tracking says of a lesion, and the kind of its chip."""
VERDICTS = {
    "accepted": ("accepted", "good"),
    "rejected": ("rejected", "bad"),
    "supplemented": ("changed", "run"),
    "not-assessed": ("not assessed", "plain"),
}
DELIVERIES = {
    "pending": "wait", "sending": "run", "delivered": "good", "confirmed": "good", "parked": "bad",
    "superseded": "plain", "abandoned": "bad",
}  # fmt: skip
JOBS = {
    "queued": "wait", "running": "run", "delivering": "run", "done": "good", "dead": "bad", "superseded": "plain",
    "parked": "plain",
}  # fmt: skip
CHOSEN = {
    "outline": "outline",
    "confirm": "confirmed as a lesion",
    "reject": "rejected",
    "relink": "is the lesion",
    "role": "role",
    "node": "lymph node",
    "site": "site",
    "status": "seen",
    "drawn": "drawn",
}
BAR_DEVIATIONS = 3.0


def _why(one: AnalysisView) -> str:
    return (one.error_text or one.error_code or "").rstrip(".")


def outcome(one: AnalysisView) -> str:
    """Return what an analysis came to, as a statement: also that nothing was found is one."""
    if one.state in ("delivering", "done"):
        refused = [said.sentence for said in one.said if said.is_refused]
        if refused and not one.findings:
            return refused[0]
        if one.findings:
            return f"{one.findings} finding{'' if one.findings == 1 else 's'}"
        if one.results and not one.plugin.startswith("response"):
            return "it looked, and nothing was found"
        return "" if one.results else next((said.sentence for said in one.said), "it had nothing to look at")
    if one.state == "queued" and one.error_text:
        return f"attempt {one.attempt} of {one.max_attempts} failed: {_why(one)}"
    return _why(one)


def site_line(one: FindingView) -> str:
    """Return what and where a finding is."""
    what, site = "lymph node" if one.node else one.type.lower(), one.site.lower()
    if not site or site in what:
        return what
    return site if what in site else f"{what}, {site}"


def doubts(one: FindingView) -> list[tuple[str, float, str]]:
    """Return how sure the analysis was, as words, a share of one, and what the share means."""
    found = []
    if one.confidence is not None:
        meaning = "how sure the analysis is that it is what it says"
        found.append((f"Is a {one.type.lower()}", one.confidence, meaning))
    if "dice_deficit" in one.doubts:
        meaning = "overlap with the truth (Dice) to be expected if the networks' probabilities are right"
        found.append(("Outline, expected overlap", 1 - one.doubts["dice_deficit"], meaning))
    if "disagreement" in one.doubts:
        meaning = "mean overlap (Dice) of what each network draws with what all draw together"
        found.append(("Networks agree", 1 - one.doubts["disagreement"], meaning))
    return [(words, min(max(share, 0.0), 1.0), meaning) for words, share, meaning in found]


def told_of(one: FindingView) -> list[str]:
    """Return the intervals and doubts of a finding without its name before each, but for what its identity tells."""
    start, reason = len(one.label) + 2, one.identity.reason if one.identity else ""
    return [said[start:].lstrip(" :") for said in one.said if not reason or reason not in said]


def role_line(one: FindingView) -> str:
    """Return what a lesion is to the criteria, who said so and, of a proposal, why; empty when nobody did."""
    role = one.role or "not judged by the criteria"
    why = f", by the baseline: {one.role_because}" if one.role_because else ""
    return {
        "": "",
        PROPOSAL: f"{role}: proposed by the rules of selection{why}",
        FIRST_SEEN: f"{role}: {FIRST_SEEN}",
        BY_HAND: f"{role}: {BY_HAND}",
        UNCONFIRMED: f"{role}: nobody confirmed it yet, so it does not count",
    }.get(one.role_by, f"{role}, says {one.role_by}")


def bar(one: MeasurementView) -> tuple[float, float, float] | None:
    """Return where value and one standard deviation to either side lie on a bar of 100 from zero on; None without."""
    if not one.uncertainty or one.value <= 0:
        return None
    whole = one.value + BAR_DEVIATIONS * one.uncertainty
    low = max(one.value - one.uncertainty, 0.0)
    return (100 * low / whole, 100 * one.value / whole, 100 * (one.value + one.uncertainty) / whole)


def decision(one: Decision, lesions: dict[str, str]) -> str:
    """Return a choice in words."""
    words = CHOSEN.get(one.kind, one.kind)
    if one.kind in ("confirm", "reject", "node"):
        return words if one.value == "true" else f"not {words}"
    if one.kind == "relink":
        name = lesions.get(one.value)
        return f"{words} '{name}'" if name else "is a lesion of its own"
    return f"{words}: {one.value}"


__all__ = [
    "DELIVERIES", "JOBS", "KINDS", "LINKS", "VERDICTS", "bar", "decision", "doubts", "outcome",
    "role_line", "site_line", "told_of",
]  # fmt: skip
