"""Routing: rules that say where a task goes and how urgent it is, on every broker alike."""
