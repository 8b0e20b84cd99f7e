"""What a course of measurements means: the response criteria, as pure functions without I/O."""
