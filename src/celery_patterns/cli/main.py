"""The group of all commands, registered with Celery as an entry point."""

from __future__ import annotations

import click

from celery_patterns.cli.idempotency import idempotency
from celery_patterns.cli.limits import limits
from celery_patterns.cli.locks import locks
from celery_patterns.cli.routes import routes
from celery_patterns.cli.waiting import pump, waiting
from celery_patterns.cli.workflow import workflow


@click.group()
def patterns() -> None:
    """Look into celery-patterns' state, and mend it."""


patterns.add_command(idempotency)
patterns.add_command(routes)
patterns.add_command(limits)
patterns.add_command(locks)
patterns.add_command(workflow)
patterns.add_command(waiting)
patterns.add_command(pump)
