"""DICOM objects to and from the plugins' contract: series, RTSTRUCT, SEG, SR and the rules they obey."""
