"""Idempotency: at most one recorded effect per key and TTL."""
