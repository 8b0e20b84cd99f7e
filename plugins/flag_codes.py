"""Codes of flags that more than one room reads, where reading them costs no import."""

INTERVAL = "interval"
"""What a network's drawing is told with: between which bounds its sizes lie."""
NOTHING_HERE = "nothing-to-analyse"
"""What an analysis says of a study that holds nothing for it; no fault, unless all of them say so."""
