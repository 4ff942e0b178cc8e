"""What operators type: ``celery -A proj patterns ...`` and ``celery -A proj dlq ...``."""

from celery_patterns.cli.dlq import dlq
from celery_patterns.cli.main import patterns

__all__ = ["dlq", "patterns"]
