"""What every pattern stands on: it knows Celery and Redis, and no pattern."""
