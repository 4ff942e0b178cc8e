"""Settings: from `app.conf` in all its spellings, and the operator's kill switch."""

import contextvars
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery

from celery_patterns import Idempotency, IdempotentTask, disabled
from celery_patterns.core.settings import disabled_kinds, setting
from celery_patterns.core.store import Store, store_of
from celery_patterns.errors import PolicyError
from celery_patterns.testing import MovableClock


def configured(how: str, **settings: Any) -> Celery:
    app = Celery("shop")
    match how:
        case "update":
            app.conf.update(settings)
        case "attributes":
            for name, value in settings.items():
                setattr(app.conf, name, value)
        case "object":
            app.config_from_object(SimpleNamespace(**settings))
        case "django":
            capitals = {f"CELERY_{name.upper()}": value for name, value in settings.items()}
            app.config_from_object(SimpleNamespace(**capitals), namespace="CELERY")
    return app


@pytest.mark.parametrize("how", ["update", "attributes", "object", "django"])
def test_settings_are_read_however_the_app_is_configured(how: str) -> None:
    """A setting in one of Celery's four places would be ignored in silence."""
    app = configured(
        how, patterns_url="memory://mine", patterns_prefix="shop", patterns_disabled=["singleton"]
    )
    assert (store_of(app).url, store_of(app).prefix) == ("memory://mine", "shop")
    assert set(disabled_kinds(app)) == {"singleton"}


def test_a_missing_setting_has_its_default() -> None:
    """An app that sets nothing, or `None` from its environment, would fail."""
    app = configured("update", patterns_prefix=None)
    assert setting(app, "patterns_prefix", "cp") == "cp"
    assert setting(app, "patterns_url", "default") == "default"
    assert setting(configured("update", patterns_prefix=""), "patterns_prefix", "cp") == ""


def test_a_worker_of_a_test_obeys_the_tests_clock() -> None:
    """The clock that a test moves would stand still in the worker's process."""
    assert store_of(configured("update", patterns_url="memory://a")).clock_key is None
    clocked = configured(
        "update", patterns_url="memory://b", patterns_prefix="shop", patterns_test_clock=True
    )
    assert store_of(clocked).clock_key == MovableClock(Store("memory://c", "shop")).store.clock_key


@pytest.mark.parametrize(
    ("value", "kinds"),
    [
        (True, {"*"}),
        (False, set()),
        (None, set()),
        ([], set()),
        ("idempotency", {"idempotency"}),
        (("idempotency", "singleton"), {"idempotency", "singleton"}),
    ],
)
def test_policies_are_switched_off_by_a_setting(value: Any, kinds: set[str]) -> None:
    """The operator's switch would not work in the form in which it was written."""
    assert set(disabled_kinds(configured("update", patterns_disabled=value))) == kinds


def test_policies_are_switched_off_in_a_context() -> None:
    """A one-off script would switch off more than it said, or leave it off."""
    app = configured("update", patterns_disabled="singleton")
    with disabled("idempotency"):
        with disabled("circuit"):
            assert set(disabled_kinds(app)) == {"singleton", "idempotency", "circuit"}
        with disabled():
            assert "*" in disabled_kinds(app)
        assert set(disabled_kinds(app)) == {"singleton", "idempotency"}
    assert set(disabled_kinds(app)) == {"singleton"}
    with pytest.raises(RuntimeError), disabled():
        raise RuntimeError
    assert set(disabled_kinds(app)) == {"singleton"}


def test_a_context_is_switched_off_by_itself() -> None:
    """A script in one thread or greenlet would switch off the policies of all others."""
    app = configured("update")
    with disabled():
        assert contextvars.Context().run(disabled_kinds, app) == frozenset()


@pytest.mark.parametrize(("switch", "expected"), [("context", [1, 1]), ("setting", [1, 1]), ("none", [1])])
def test_a_policy_that_is_switched_off_neither_asks_nor_writes(
    switch: str, expected: list[int], patterns_store: Store
) -> None:
    """The switch is for the day on which the store is the trouble."""
    app = configured("update", patterns_disabled=switch == "setting")
    runs: list[int] = []

    @app.task(base=IdempotentTask, idempotency=Idempotency(key="order"), name="shop.charge", shared=False)
    def charge(order: int) -> None:
        runs.append(order)

    with disabled("idempotency") if switch == "context" else disabled("another"):
        charge.apply((1,)).get()
        charge.apply((1,)).get()
    assert runs == expected
    assert bool(patterns_store.client.keys()) == (switch == "none")


@pytest.mark.parametrize("value", ["True", "yes", "1", "all", True])
def test_the_switch_takes_what_an_environment_holds(value: Any) -> None:
    """In an emergency the switch would do nothing."""
    app = Celery("switch", set_as_current=False)
    app.conf.patterns_disabled = value
    assert "*" in disabled_kinds(app)


def test_the_switch_takes_names_with_commas_between() -> None:
    """The names of an environment variable would be read as one."""
    app = Celery("switch", set_as_current=False)
    app.conf.patterns_disabled = "idempotency, singleton"
    assert set(disabled_kinds(app)) == {"idempotency", "singleton"}


@pytest.mark.parametrize("value", [1, [1], 2.5])
def test_the_switch_refuses_what_means_nothing(value: Any) -> None:
    """Each call would fail with a riddle."""
    app = Celery("switch", set_as_current=False)
    app.conf.patterns_disabled = value
    with pytest.raises(PolicyError, match="patterns_disabled"):
        disabled_kinds(app)
