"""Clinical facts beside an image (age, sex, smoking): each moves the logit, one that is not known does not.

No data with such facts come with Nadir: a model has them only where somebody taught it with his own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.files import BadModel


@dataclass(frozen=True, kw_only=True)
class Covariate:
    """One fact, as a number."""

    name: str
    """What it is, with its unit: `age_years` and `is_female` are read from the study, any other counts as unknown."""
    mean: float
    """Mean where it was known: what is supposed where it is not."""
    spread: float
    """Standard deviation, above 0."""
    weight: float
    """Logits for one standard deviation."""


@dataclass(frozen=True, kw_only=True)
class Covariates:
    """A logistic model of the image's logit and clinical facts."""

    image: float
    """Weight of the image's logit."""
    intercept: float
    """Logit when everything is 0 or at its mean."""
    facts: tuple[Covariate, ...]
    """The facts that were learned."""

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Covariates:
        """Return the model that a card describes. Raises BadModel (`bad-card`)."""
        try:
            facts = tuple(Covariate(**fact) for fact in plain["facts"])
            return cls(image=float(plain["image"]), intercept=float(plain["intercept"]), facts=facts)
        except (KeyError, TypeError, ValueError) as error:
            raise BadModel("bad-card", f"'covariates' are not as they have to be: {error!r}") from error

    def logit(self, image: float, known: Mapping[str, float | None]) -> float:
        """Return the logit for an image's logit and what is known; where nothing is, that of the image.

        Raises ValueError for a fact that was not learned, and for one that is not a finite number.
        """
        if unknown := sorted(set(known) - {fact.name for fact in self.facts}):
            learned = ", ".join(fact.name for fact in self.facts)
            raise ValueError(f"'{unknown[0]}' was not learned; what was: {learned}")
        told = {name: value for name, value in known.items() if value is not None}
        if not all(math.isfinite(value) for value in told.values()):
            raise ValueError("a clinical fact is a finite number, or None where it is not known")
        if not told:
            return image
        moved = sum(
            fact.weight * (told[fact.name] - fact.mean) / fact.spread
            for fact in self.facts
            if fact.name in told
        )
        return self.intercept + self.image * image + moved
