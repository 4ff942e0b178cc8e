"""One concern per file; none imports another."""
