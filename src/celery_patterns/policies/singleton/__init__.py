"""At most one: singletons, runs that do not overlap, and a lock for any code."""
