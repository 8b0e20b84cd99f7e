"""Codes of flags that more than one room reads, where reading them costs no import."""

INTERVAL = "interval"
"""What a network's drawing is told with: between which bounds its sizes lie."""
MALIGNANCY_INTERVAL = "malignancy-interval"
"""What a likelihood of malignancy is told with: its bounds, and what counted beside the image."""
MARKED_BY = "marked-by"
"""Who marked the point that a lesion was drawn from."""
SEVERAL_SERIES = "several-series"
"""Which series was measured where several show the place."""
NOTHING_HERE = "nothing-to-analyse"
"""What an analysis says of a study that holds nothing for it; no fault, unless all of them say so."""
INFORMING = frozenset({INTERVAL, MALIGNANCY_INTERVAL, MARKED_BY, SEVERAL_SERIES})
"""What is told of a sound result too, as a note: no doubt."""
