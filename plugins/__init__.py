"""What is found in one study: the contract, the registry, the measurement functions, one file per analysis."""
