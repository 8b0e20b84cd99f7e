"""The settings `[retrain]`: which models learn again from what people drew, when, how, and what the gate asks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator
from pydantic_settings import NoDecode

from node.crontab import Crontab
from node.paths import without_tilde
from node.quantities import MOST_SECONDS, Bytes, Count, Number, Whole
from node.words import Words, split_words
from node.zone import known_zone
from training.margins import Margins
from training.recipe import FAMILIES, Recipe


def _margins(value: object) -> object:
    """Take a table of some limits for all of them; the others are the usual ones."""
    if not isinstance(value, Mapping):
        return value
    if unknown := sorted(set(value) - set(Margins.__dataclass_fields__)):
        known = ", ".join(Margins.__dataclass_fields__)
        raise ValueError(f"'{unknown[0]}' is no limit of the gate; the limits are {known}")
    limits: dict[str, Any] = {name: float(v) if isinstance(v, str) else v for name, v in value.items()}
    return Margins(**limits)


class RetrainSettings(BaseModel):
    """How and when models are retrained. Without `families` nothing is trained by itself."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    families: Words = Field(
        default=(), description="Models that are retrained by the schedule: " + ", ".join(FAMILIES)
    )
    cron: str = Field(
        default="0 2 * * 6",
        description="When: minute, hour, day, month and weekday as in crontab; off for never",
    )
    drift_cron: str = Field(
        default="0 5 * * 1",
        description="When the statistics of the past week are looked at for drift; off for never",
    )
    timezone: str = Field(default="UTC", description="Time zone of both: UTC, or a name as Europe/Berlin")
    misfire_grace_seconds: Whole = Field(
        default=21600,
        ge=1,
        le=MOST_SECONDS,
        description="How late a missed run may still begin; after that it waits for its next time",
    )
    fewest_new_labels: Count = Field(
        default=20,
        ge=1,
        description="Masks of people that no earlier run learned from; with fewer nothing is trained",
    )
    drawn: bool = Field(
        default=False, description="Whether lesions that Nadir missed are learned from as well"
    )
    steps: Count = Field(
        default=600, ge=1, description="Steps of the optimiser for each network of the ensemble"
    )
    batch: Count = Field(default=8, ge=1, description="Samples in a step")
    learning_rate: Number = Field(default=3e-4, gt=0, le=0.1, description="Highest learning rate")
    seed: Whole = Field(
        default=0, ge=0, le=2**31 - 1, description="Seed of order, augmentation and the gate's draws"
    )
    data: Annotated[tuple[Path, ...], NoDecode, BeforeValidator(split_words)] = Field(
        default=(),
        description="Folders of curated data sets that are learned from again beside the new masks; each model takes "
        "the cases of its kind (nodules on CT, lesions on PET)",
    )
    replay_share: Number = Field(
        default=0.5, ge=0, lt=1, description="Part of the samples that comes from those folders"
    )
    margins: Annotated[Margins, BeforeValidator(_margins)] = Field(
        default_factory=Margins, description="Limits of the gate, by name"
    )
    threads: Count = Field(default=1, ge=1, description="Threads that a run computes with")
    memory_bytes: Bytes = Field(default=12 << 30, gt=0, description="Address space that a run may use")
    lease_seconds: Number = Field(
        default=120.0, ge=1, le=86_400, description="A run that is silent for this long is taken for dead"
    )

    _paths = field_validator("*")(without_tilde)

    @field_validator("families")
    @classmethod
    def _families(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in FAMILIES:
                raise ValueError(f"nobody knows how to retrain '{name}'; known: {', '.join(FAMILIES)}")
        return tuple(dict.fromkeys(value))

    @field_validator("cron", "drift_cron")
    @classmethod
    def _crontab(cls, value: str) -> str:
        if value != "off":
            Crontab.of(value)
        return value

    @field_validator("timezone")
    @classmethod
    def _timezone(cls, value: str) -> str:
        return known_zone(value)

    def recipe(self, family: str) -> Recipe:
        """Return how a family is retrained."""
        return Recipe(
            family=family,
            fewest_new_labels=self.fewest_new_labels,
            steps=self.steps,
            batch=self.batch,
            learning_rate=self.learning_rate,
            seed=self.seed,
            replay=self.data,
            replay_share=self.replay_share,
            margins=self.margins,
            threads=self.threads,
        )


__all__ = ["RetrainSettings"]
