"""What is learned and how it runs: arrays and spacings in, arrays out. No DICOM, no SQL, no network."""
