"""Stores for the tests of the waiting room."""

from tests.core import conftest as _profiles  # noqa: F401 - how hard property tests try
from tests.policies.rate_limits.conftest import frozen, store

__all__ = ["frozen", "store"]
