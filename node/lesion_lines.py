"""What the commands about lesions show: rows, lines and plain data of a course and of the choices in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Any

from store.decimals import in_decimals

if TYPE_CHECKING:
    from store.course import Course
    from store.sighting import Decision, Measure, Sighting


def plain_choice(decision: Decision) -> dict[str, Any]:
    """Return a choice as plain data."""
    return asdict(decision)


def choice_row(decision: Decision, known: Course) -> dict[str, Any]:
    """Return a choice with the names of lesions and the dates of visits instead of their UIDs."""
    labels = {uid: s.label for s in known.sightings for uid in (s.choice_uid, s.written_uid)}
    names = {**labels, **known.names}
    dates = {v.study_instance_uid: str(v.study_date) for v in known.visits}
    return {
        "number": decision.number,
        "at": f"{decision.at:%Y-%m-%d %H:%M}",
        "author": decision.author,
        "kind": decision.kind,
        "lesion": names.get(decision.tracking_uid, decision.tracking_uid),
        "visit": dates.get(decision.study_instance_uid, decision.study_instance_uid),
        "value": names.get(decision.value, decision.value),
        "source": decision.source,
        "note": decision.note,
    }


def line(decision: Decision, known: Course) -> str:
    """Return a choice in one line."""
    told = choice_row(decision, known)
    where = f" at {told['visit']}" if told["visit"] else ""
    note = f" ({told['note']})" if told["note"] else ""
    of = f" '{told['lesion']}'" if told["lesion"] else ""
    said = f"{told['kind']}{of}{where}: {told['value']}{note}"
    return f"choice {told['number']}, {told['at']} UTC, {told['author']}: {said}"


def as_node(known: Course, uid: str) -> str:
    """Return by which rules the short axes that count of a lesion called a node were measured; or that none were."""
    counting = [s for s in known.sightings if s.counts and not s.on_pet and uid in (s.lesion, s.tracking_uid)]
    axes = [s.measurements for s in counting if "short_axis" in s.measurements]
    rules = sorted({_slice_rule(found) for found in axes})
    if not rules:
        return "No short axis of it was measured, by which a node counts."
    return f"Its short axis counts as it was measured, nothing is measured anew: {'; '.join(rules)}."


def _slice_rule(axes: Mapping[str, Measure]) -> str:
    """Return the words of the rule for both axes, which those of the long one have, where an analysis measured."""
    if not axes["short_axis"].method:
        return "measured by a person"
    return axes.get("long_axis", axes["short_axis"]).method


def decisions(known: Course) -> list[Decision]:
    """Return the choices that changed something of a course, oldest first."""
    made = {d.number: d for s in known.sightings for d in s.decisions}
    return [made[number] for number in sorted(made)]


def row(known: Course, uid: str, name: str, days: Sequence[date]) -> dict[str, Any]:
    """Return what a lesion is and what was seen of it on each date; in brackets what does not count."""
    own = [s for s in known.sightings if s.lesion == uid]
    first = next((s for s in own if s.counts), own[0])
    row: dict[str, Any] = {"name": name, "uid": uid, "site": first.site}
    row |= {"role": first.role.value if first.role else "", "by": first.role_by}
    for day in days:
        row[str(day)] = _sizes([s for s in own if s.date == day])
    return row


def _sizes(there: Sequence[Sighting]) -> str:
    """Return the sizes of fragments with a plus between them; in brackets what a PET says beside, or nothing counts."""
    counting = [s for s in there if s.counts]
    added = [s for s in counting if not s.on_pet] or counting
    beside = [s for s in counting or there if s not in added]
    bracketed = [f"({_size(s)})" for s in beside]
    return " ".join(filter(None, [" + ".join(map(_size, added)), *bracketed]))


def _size(one: Sighting) -> str:
    length, status = one.measurements.get("long_axis"), one.status.value
    return f"{in_decimals(length.value)} mm" if status == "measured" and length is not None else status


def plain(known: Course) -> dict[str, Any]:
    """Return a course as plain data."""
    return {
        "patient": asdict(known.patient),
        "visits": [asdict(visit) for visit in known.visits],
        "lesions": [
            {
                "lesion": uid,
                "name": name,
                "sightings": [_worded(asdict(s)) for s in known.sightings if s.lesion == uid],
            }
            for uid, name in known.names.items()
        ],
    }


def _worded(value: Any) -> Any:
    """Return plain data with each code as value, scheme and meaning."""
    if isinstance(value, dict):
        return {key: _worded(inner) for key, inner in value.items()}
    if hasattr(value, "scheme_designator"):
        return {"value": value.value, "scheme": value.scheme_designator, "meaning": value.meaning}
    return [_worded(inner) for inner in value] if isinstance(value, list | tuple) else value


__all__ = ["choice_row", "decisions", "line", "plain", "plain_choice", "row"]
