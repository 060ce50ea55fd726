"""For whoever builds on snapvault: certify a backend (``backend``), and break one on purpose (``faults``)."""
