"""The names that people import."""

from importlib import import_module

import pytest

import celery_patterns


@pytest.mark.parametrize("name", celery_patterns.__all__)
def test_every_public_name_is_found_where_it_lives(name: str) -> None:
    """A name that type checkers see would be missing when a program runs."""
    home = import_module(f"celery_patterns.{celery_patterns._HOME[name]}")
    assert getattr(celery_patterns, name) is getattr(home, name)
    assert name in dir(celery_patterns)


def test_no_name_has_a_home_without_being_public() -> None:
    """What is found by its name would be missing in the reference and for type checkers."""
    assert set(celery_patterns._HOME) == set(celery_patterns.__all__)


def test_errors_are_found_without_an_import_of_their_own() -> None:
    """`celery_patterns.errors.StoreUnavailable` would depend on what else was imported before."""
    assert issubclass(celery_patterns.errors.StoreUnavailable, celery_patterns.PatternsError)


def test_an_unknown_name_says_so() -> None:
    """A typing error in an import would end as something stranger than an AttributeError."""
    with pytest.raises(AttributeError, match="has no attribute 'Idempotencey'"):
        _ = celery_patterns.Idempotencey
