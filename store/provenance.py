"""Who made a result, from what and with what."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Who made a result, from what, with what: written into SEG, SR and SQL alike."""

    plugin: str
    """Name of the plugin."""
    plugin_version: str
    """Version of the plugin."""
    model_name: str
    """Name of the model; the plugin's own name when it has none."""
    model_version: str
    """Version of the model."""
    model_sha256: str
    """Hash of the model card."""
    config_sha256: str
    """Hash of the plugin's settings."""
    manifest_sha256: str
    """Hash of the instances that were analysed."""
    job_key: str
    """Key of the job; every result UID derives from it."""
    software_version: str
    """Version of Nadir."""
    started_at: str
    """ISO 8601 UTC time at which the analysis started."""
    model_kind: str = "classical"
    """`classical` for a fixed procedure, `learned` for a network with weights."""


__all__ = ["Provenance"]
