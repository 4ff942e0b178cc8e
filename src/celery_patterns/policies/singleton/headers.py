"""What a singleton's message says about itself, beside what every message says."""

FOLLOW_HEADER = "cp-singleton-follows"
"""The task whose result this one is to end with."""
SKIP_HEADER = "cp-singleton-skipped"
"""The task that this one was a duplicate of when it was published."""
AT_HEADER = "cp-singleton-at"
"""When it was published, in microseconds of the server's clock: the newest counts."""
