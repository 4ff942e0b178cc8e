"""Programs that show celery-patterns at work; run them from the root of the repository."""
