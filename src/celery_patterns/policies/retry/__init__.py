"""Retries decided by tenacity's objects and waited for by Celery: no worker slot sleeps."""
