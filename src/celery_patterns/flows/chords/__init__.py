"""Chords that survive failed parts, and how far a workflow has come."""
