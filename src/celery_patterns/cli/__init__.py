"""What operators type: ``celery -A proj patterns ...``."""

from celery_patterns.cli.main import patterns

__all__ = ["patterns"]
