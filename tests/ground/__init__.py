"""The tests' ground: real servers, real workers, and what is needed to watch and to break them.

Nothing here knows the library. The fixtures made from it are in `tests/conftest.py`.
"""
