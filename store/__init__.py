"""What is kept: bytes on disk, SQL rows, DICOM encoding and decoding, the job ledger, the outbox."""
