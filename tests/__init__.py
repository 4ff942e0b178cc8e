"""The tests. A package, so that test modules, apps and workers all import `tests.ground` by one name."""
