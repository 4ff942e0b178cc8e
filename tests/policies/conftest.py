"""How hard the property tests try: `CELERY_PATTERNS_HYPOTHESIS=long` before a release, else a few seconds."""

import os

from hypothesis import HealthCheck, settings

# A shared machine is slow now and then; that a single example took long says nothing about the code.
_PATIENT = {"deadline": None, "database": None, "suppress_health_check": [HealthCheck.too_slow]}

settings.register_profile("ci", max_examples=60, derandomize=True, stateful_step_count=30, **_PATIENT)
settings.register_profile("long", max_examples=2_000, stateful_step_count=80, **_PATIENT)
settings.load_profile(os.environ.get("CELERY_PATTERNS_HYPOTHESIS", "ci"))
