"""The library's errors cross processes: from the child to the parent, and through the result backend."""

import inspect
import pickle
import uuid
from typing import Any

import pytest
from celery import Celery
from celery.utils.serialization import get_pickleable_exception, get_pickled_exception

from celery_patterns import errors

REFUSALS = [errors.Refused, errors.IdempotencyInProgress, errors.RunLapsed]


def classes() -> list[type[Exception]]:
    found = inspect.getmembers(errors, inspect.isclass)
    return [one for _, one in found if issubclass(one, errors.PatternsError) and one is not errors.Throttled]


ALL = pytest.mark.parametrize("error_class", classes(), ids=lambda one: one.__name__)


@ALL
def test_errors_survive_pickling(error_class: type[Exception]) -> None:
    """A worker whose child fails so would report an error of pickling instead."""
    error = error_class("charge: no")

    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is error_class
    assert (copy.args, str(copy), vars(copy)) == (error.args, "charge: no", vars(error))


@ALL
def test_errors_survive_celerys_own_pickling(error_class: type[Exception]) -> None:
    """Celery would wrap it, and users could not catch it by its class."""
    error = error_class("charge: no")

    assert get_pickleable_exception(error) is error
    assert get_pickled_exception(error) is error


@ALL
@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_errors_survive_the_result_backend(error_class: type[Exception], serializer: str) -> None:
    """`result.get()` would raise another error than the task."""
    app = Celery("errors", backend="cache+memory://", set_as_current=False)
    app.conf.update(result_serializer=serializer, accept_content=[serializer])
    error = error_class("charge: no")

    task_id = uuid.uuid4().hex  # all in-memory backends of a process share one memory

    app.backend.store_result(task_id, error, "FAILURE")
    found = app.AsyncResult(task_id).result

    assert type(found) is error_class
    assert str(found) == "charge: no"


@pytest.mark.parametrize("error_class", REFUSALS)
@pytest.mark.parametrize("retry_after", [None, 0, 2.5])
def test_refusals_keep_when_to_ask_again(error_class: Any, retry_after: float | None) -> None:
    """Whoever catches it in another process would have to guess."""
    error = error_class("busy", retry_after)

    copy = pickle.loads(pickle.dumps(error))

    assert (copy.message, copy.retry_after, str(copy)) == ("busy", retry_after, "busy")


def test_wrong_declarations_are_type_errors() -> None:
    """`except TypeError` around a declaration would miss them."""
    assert issubclass(errors.PolicyError, TypeError)
    assert issubclass(errors.KeyArgumentError, TypeError)


def test_warnings_are_not_errors() -> None:
    """`except PatternsError` would catch warnings that a project has turned into errors."""
    assert not issubclass(errors.PatternsWarning, errors.PatternsError)
