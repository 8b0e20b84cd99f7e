"""The same lesion at the next time point: registration, matching, identity."""
