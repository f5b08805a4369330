"""Which architectures to look at: strategies, constraints, and the log that makes a search resumable."""
