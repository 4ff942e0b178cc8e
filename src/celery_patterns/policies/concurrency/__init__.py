"""At most n at once: limits that are sets of owners with leases."""
