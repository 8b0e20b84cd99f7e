"""What the matching knows of a lesion: of an earlier one, where it should be now; of a present one, where it is."""

from __future__ import annotations

from dataclasses import dataclass

from plugins.contract import Mask, Point


@dataclass(frozen=True, kw_only=True, eq=False)
class EarlierLesion:
    """A lesion of an earlier time point, brought to the new one."""

    tracking_uid: str
    """Its identity; no two earlier lesions share one."""
    tracking_identifier: str
    """Its Tracking ID."""
    study_instance_uid: str
    """The study that it was seen in."""
    expected_mm: Point
    """Where its centre of gravity is expected at the new time point, LPS mm."""
    expected_mask: Mask | None
    """Its mask as it is expected on the grid of the new study; None or empty when only its place is known."""
    volume_mm3: float
    """Its volume at the earlier time point; 0 when it is not known."""
    in_view: float
    """Share of it that is expected inside the new field of view, 0 to 1."""
    expected_sd_mm: float = 3.0
    """How uncertain `expected_mm` is, one standard deviation along an axis, mm (the quality of the registration)."""
    visible: float | None = None
    """0 to 1: how sure it is that something like it is still seen where it is expected; None when nobody looked."""
    site: str | None = None
    """Code value of its organ or region; None when it is not known."""
    type: str | None = None
    """Code value of what it is; None when it is not known."""
    node: bool = False
    """True for a lymph node."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PresentLesion:
    """A lesion of the new time point."""

    key: str
    """`Finding.key`; no two present lesions share one."""
    label: str
    """What people read."""
    centroid_mm: Point
    """Its centre of gravity, LPS mm."""
    mask: Mask
    """Its mask on the grid of the new study."""
    volume_mm3: float
    """Its volume."""
    site: str | None = None
    """Code value of its organ or region; None when it is not known."""
    type: str | None = None
    """Code value of what it is; None when it is not known."""
    tracking_uid: str | None = None
    """The identity that a person's drawing brought with it; None for an automatic finding."""
    tracking_identifier: str | None = None
    """The Tracking ID that came with it, if any."""


__all__ = ["EarlierLesion", "PresentLesion"]
