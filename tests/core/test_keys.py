"""Keys: equal calls agree on one, different calls do not, and the producer agrees with the worker."""

import inspect
import pickle
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.util import find_spec
from operator import itemgetter
from typing import Any

import pytest
from celery import Celery
from hypothesis import assume, given
from hypothesis import strategies as st
from kombu.exceptions import DecodeError, EncodeError
from kombu.serialization import dumps, loads

from celery_patterns import ALL_ARGS
from celery_patterns.core.canonical import LONGEST_TEXT
from celery_patterns.core.keys import KeyMaker, KeySpec
from celery_patterns.core.policy import Call
from celery_patterns.core.seam import Seam
from celery_patterns.errors import KeyArgumentError, PolicyError
from tests.core.values import Colour, Point, identity, json_values, lookalikes, respelled, values

NAME = "shop.charge"
_MODULES = {"json": "json", "pickle": "pickle", "yaml": "yaml", "msgpack": "msgpack"}
SERIALIZERS = [name for name, module in _MODULES.items() if find_spec(module)]


def charge(
    order: Any, amount: Any = (1, None), note: Any = None, *rest: Any, when: Any = 0, **extra: Any
) -> None: ...


SPECS: list[KeySpec] = [
    "order",
    "amount",
    "rest",
    ("order", "amount", "when"),
    "{order}:{amount}{when}",
    ALL_ARGS,
    lambda order, when: (order, {"when": when}),
    lambda arguments: [arguments["rest"], dict(arguments)],
]


def maker(spec: KeySpec, serializer: str = "json", function: Callable[..., Any] = charge) -> KeyMaker:
    return KeyMaker(spec, NAME, inspect.signature(function), serializer)


def key_of(made: KeyMaker, *args: Any, **kwargs: Any) -> str:
    return made.key(made.bind(args, kwargs), serialised=False)


def key_at_worker(made: KeyMaker, *args: Any, **kwargs: Any) -> str:
    carried_args, carried_kwargs = carried([args, kwargs], made.serializer)
    return made.key(made.bind(carried_args, carried_kwargs), serialised=True)


def carried(value: Any, serializer: str) -> Any:
    content_type, encoding, payload = dumps(value, serializer=serializer)
    return loads(payload, content_type, encoding, accept=[content_type])


@dataclass
class Arguments:
    """The arguments of a call of `charge`, apart from how they are written."""

    order: Any
    optional: dict[str, Any] = field(default_factory=dict)
    rest: list[Any] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    def written(self, chance: random.Random) -> tuple[list[Any], dict[str, Any]]:
        """As positional and keyword arguments, at random; defaults are left out at random."""
        named = {"order": self.order, "amount": (1, None), "note": None, "when": 0, **self.optional}
        positional = 3 if self.rest else chance.randrange(4)
        args = [named.pop(name) for name in ("order", "amount", "note")[:positional]]
        for name, default in [("amount", (1, None)), ("note", None), ("when", 0)]:
            if name in named and identity(named[name]) == identity(default) and chance.random() < 0.5:
                del named[name]
        kwargs = [*named.items(), *self.extra.items()]
        return args + self.rest, dict(chance.sample(kwargs, len(kwargs)))

    def identity(self, serializer: str) -> Any:
        """Something that is equal for two calls exactly when the body would see the same."""
        named = {"amount": (1, None), "note": None, "when": 0, **self.optional}
        return identity(carried([self.order, named, self.rest, self.extra], serializer))


def calls(contents: st.SearchStrategy[Any]) -> st.SearchStrategy[Arguments]:
    optional = st.fixed_dictionaries({}, optional=dict.fromkeys(("amount", "note", "when"), contents))
    extra = st.dictionaries(st.sampled_from(["tenant", "!uuid", "a b"]), contents, max_size=2)
    return st.builds(Arguments, contents, optional, st.lists(contents, max_size=2), extra)


chances = st.randoms(use_true_random=False)


# --- equal calls -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("serializer", ["json", "pickle"])
@given(calls(json_values), chances)
def test_a_call_has_one_key_however_it_is_written(
    serializer: str, call: Arguments, chance: random.Random
) -> None:
    """A duplicate that passes an argument by name, or a default, would run a second time."""
    for made in [maker(spec, serializer) for spec in SPECS]:
        (args, kwargs), (others, named) = call.written(chance), call.written(chance)
        others, named = [respelled(one, chance) for one in others], respelled(named, chance)
        assert key_of(made, *args, **kwargs) == key_of(made, *others, **named)
        assert key_at_worker(made, *args, **kwargs) == key_at_worker(made, *others, **named)


def test_a_defaulted_argument_more_changes_no_key() -> None:
    """A deploy that adds an argument would run every recent call again."""

    def before(order: Any, *, note: Any = None) -> None: ...
    def after(order: Any, amount: Any = ("EUR", 1), *, note: Any = None, client: Any = print) -> None: ...

    old, new = maker(ALL_ARGS, function=before), maker(ALL_ARGS, function=after)
    assert key_of(old, 1) == key_of(new, 1) == key_at_worker(new, 1) == key_of(new, 1, ["EUR", 1])
    assert key_of(new, 1) != key_of(new, 1, ("EUR", 2))
    bound = new.bind((1,), {})
    assert new.fingerprint(bound, serialised=True) == new.fingerprint(bound, serialised=False)


# --- different calls -------------------------------------------------------------------------------------


@pytest.mark.parametrize("serializer", ["json", "pickle"])
@given(
    st.tuples(calls(json_values), calls(json_values)) | st.tuples(calls(lookalikes), calls(lookalikes)),
    chances,
)
def test_all_arguments_tell_calls_apart(
    serializer: str, pair: tuple[Arguments, Arguments], chance: random.Random
) -> None:
    """A new order would be answered with the result of another."""
    made = maker(ALL_ARGS, serializer)
    keys = [key_of(made, *args, **kwargs) for args, kwargs in (call.written(chance) for call in pair)]
    same = pair[0].identity(serializer) == pair[1].identity(serializer)
    assert (keys[0] == keys[1]) == same


@pytest.mark.parametrize(
    "spec", [("order", "amount"), "{order}{amount}", "{order}:{amount}", "{{{order}}}{amount}"]
)
@given(st.lists(lookalikes | values, min_size=4, max_size=4))
def test_parts_of_a_key_do_not_run_together(spec: KeySpec, parts: list[Any]) -> None:
    """("a-b", "c") and ("a", "b-c") would be one order."""
    made = maker(spec, "pickle")
    (a, b), (c, d) = parts[:2], parts[2:]
    assert (key_of(made, a, b) == key_of(made, c, d)) == (identity([a, b]) == identity([c, d]))


def test_values_that_print_alike_have_keys_of_their_own() -> None:
    """An order without a number would share the record of one that is called "None"."""
    made = maker("order")
    alike = [None, "None", "null", 1, "1", True, "true", 1.0, [1], ["1"], "[1]", {"1": 1}, {}, "", b"1"]
    assert len({key_of(made, one) for one in alike}) == len(alike)


# --- the producer and the worker -------------------------------------------------------------------------


@pytest.mark.parametrize("serializer", SERIALIZERS)
@given(st.data(), chances)
def test_producer_and_worker_agree(serializer: str, data: st.DataObject, chance: random.Random) -> None:
    """What is held under the producer's key would never be found by the worker."""
    call = data.draw(calls(values if serializer == "pickle" else json_values))
    args, kwargs = call.written(chance)
    assume(serializer == "json" or is_carried([args, kwargs], serializer))
    for made in [maker(spec, serializer) for spec in SPECS]:
        assert key_of(made, *args, **kwargs) == key_at_worker(made, *args, **kwargs)


def is_carried(value: Any, serializer: str) -> bool:
    try:
        carried(value, serializer)
    except (EncodeError, DecodeError):
        return False
    return True


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_dotted_paths_lead_to_the_same_part_on_both_sides(serializer: str) -> None:
    """A number as a dict's key is text in the worker: the producer would refuse what the worker takes."""
    order = {"customer": {"id": (7, "x")}, "lines": {}}
    made = maker("order.customer.id", serializer)
    assert key_of(made, order) == key_at_worker(made, order)
    made = maker("{extra.tenant}/{tenant}", serializer)
    assert key_of(made, 1, tenant=(1,)) == key_at_worker(made, 1, tenant=(1,))
    assert key_of(maker("order.1"), {1: "a"}) == key_at_worker(maker("order.1"), {1: "a"})


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_a_call_agrees_with_its_own_message(serializer: str) -> None:
    """The seam would ask for the producer's key with other arguments than the message carries."""
    app = Celery(task_serializer=serializer, accept_content=[serializer], broker_url="memory://")
    seam = Seam(app.task(charge, name=NAME, shared=False))
    args, kwargs = ({"id": (1, 2)}, [3]), {"when": {"at": [None]}, "tenant": "é"}
    sent = app.amqp.as_task_v2("some-id", NAME, args, kwargs)
    carried_args, carried_kwargs, _ = carried(sent.body, serializer)
    request = app.tasks[NAME].request_stack.top or seam.task.request
    request.update(id="some-id", args=carried_args, kwargs=carried_kwargs, headers={}, is_eager=False)
    publishing = Call(seam=seam, args=args, kwargs=kwargs)
    running = Call(seam=seam, args=tuple(carried_args), kwargs=carried_kwargs, request=request)
    assert (publishing.is_serialised, running.is_serialised) == (False, True)
    for spec in SPECS:
        assert publishing.key(spec) == running.key(spec)
        assert publishing.fingerprint(spec) == running.fingerprint(spec)


def test_a_call_is_refused_by_its_own_serializer_only() -> None:
    """A call sent with `serializer="pickle"` would be refused for what JSON cannot carry."""
    app = Celery(task_serializer="json", broker_url="memory://")
    seam = Seam(app.task(charge, name=NAME, shared=False))
    call = Call(seam=seam, args=({Colour.RED},), kwargs={}, options={"serializer": "pickle"})
    assert call.key("order")
    with pytest.raises(KeyArgumentError, match="'order'"):
        Call(seam=seam, args=({Colour.RED},), kwargs={}).key("order")


# --- what has no key -------------------------------------------------------------------------------------


class Unloadable:
    """Can be pickled, and not unpickled."""

    def __reduce__(self) -> Any:
        return int, ("not a number",)


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("serializer", "value"),
    [
        ("json", object()),
        ("json", {1, 2}),
        ("json", timedelta(1)),
        ("json", {"__type__": "nobody knows", "__value__": 1}),
        ("json", {("a", 1): 1}),
        ("json", endless()),
        ("pickle", threading.Lock()),
        ("pickle", lambda: None),
        ("pickle", 1j),
        ("pickle", Unloadable()),
        ("pickle", endless()),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
@pytest.mark.parametrize(
    "spec", SPECS[3:], ids=["tuple", "template", "all", "callable", "callable of the mapping"]
)
def test_an_argument_without_a_text_is_named(spec: KeySpec, serializer: str, value: Any) -> None:
    """The caller would learn that something among twenty arguments is wrong, or nothing at all."""
    with pytest.raises(KeyArgumentError, match=f"{NAME}: argument 'when' cannot be part of a key: "):
        key_of(maker(spec, serializer), "A-1", when=value)


def test_a_pickled_argument_without_a_text_is_named_by_the_worker() -> None:
    """A producer without the library sends it: the task would fail and not say why."""
    made = maker("order", "pickle")
    with pytest.raises(KeyArgumentError, match="'order' cannot be part of a key: a value of type "):
        key_at_worker(made, 1j)


def test_only_arguments_of_the_key_have_to_have_a_text() -> None:
    """An open file among the arguments of a pickled task would have to leave, though no key needs it."""
    assert key_of(maker("order"), 1, note=object()) == key_of(maker("order"), 1)
    with pytest.raises(KeyArgumentError, match="'order'"):
        key_of(maker(lambda order: order), object(), amount=object())


def test_a_callable_that_returns_what_has_no_text_is_named() -> None:
    """The caller would look for a mistake among the arguments."""

    def by_object(order: Any) -> object:
        return object()

    with pytest.raises(KeyArgumentError, match=r"key=.*by_object.* gave what cannot be a key: "):
        key_of(maker(by_object), 1)


def test_a_callable_that_raises_is_named() -> None:
    """The caller would see a division by zero, and not whose."""

    def by_share(order: int) -> float:
        return 1 / order

    with pytest.raises(KeyArgumentError, match=rf"{NAME}: key=.*by_share.* raised ZeroDivisionError"):
        key_of(maker(by_share), 0)


@pytest.mark.parametrize(
    ("args", "kwargs", "named"),
    [((), {}, "'order'"), ((1,), {"order": 2}, "'order'")],
)
def test_a_call_that_does_not_fit_the_task_has_no_key(args: Any, kwargs: Any, named: str) -> None:
    """It would be published, and fail in the worker."""
    with pytest.raises(KeyArgumentError, match=f"{NAME}: .*{named}"):
        key_of(maker("order"), *args, **kwargs)


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("tenant", "'tenant'"),
        ("order.customer.id", "'order.customer.id'"),
        ("order.upper.lower", "'order.upper.lower'"),
        ("{order}:{tenant}", "'tenant'"),
        (("order", "tenant"), "'tenant'"),
    ],
)
def test_a_part_that_a_call_lacks_is_named(spec: KeySpec, named: str) -> None:
    """Every call without it would share one key."""
    with pytest.raises(KeyArgumentError, match=f"{NAME}: .*{named}"):
        key_of(maker(spec), "A-1")


# --- declarations ----------------------------------------------------------------------------------------


def plain(order: Any, amount: Any = 1) -> None: ...


@pytest.mark.parametrize(
    "spec", ["tenant", "tenant.id", "{order}:{tenant}", ("order", "tenant"), lambda order, tenant: order]
)
def test_an_argument_that_the_task_does_not_have_fails_when_declared(spec: KeySpec) -> None:
    """A typing mistake would be found by the first message, in production."""
    with pytest.raises(PolicyError, match=rf"{NAME}: .*tenant.*order, amount"):
        maker(spec, function=plain)


@pytest.mark.parametrize(
    "spec",
    [
        *["", "{}", "{0}", "{order!r}", "{order:>8}", "{order", "order}", "{{order}}"],
        *[(), ("",), ("order", 1), ("{order}",), None, 1, ["order"], {"order"}],
    ],
    ids=repr,
)
def test_what_cannot_be_a_key_fails_when_declared(spec: Any) -> None:
    """All calls would share one key, or none have any."""
    with pytest.raises(PolicyError, match="key"):
        maker(spec, function=plain)


def test_a_callable_may_take_all_arguments_in_any_form() -> None:
    """`operator.itemgetter` is what many would write."""

    def all_of(arguments: Mapping[str, Any]) -> Any:
        return {**arguments}["order"]

    keys = {
        key_of(maker(spec), "A-1", 2) for spec in ["order", all_of, itemgetter("order"), lambda order: order]
    }
    assert len(keys) == 1


def test_a_callable_sees_arguments_in_one_order() -> None:
    """A duplicate that leaves out a default, or gives arguments by name, would have another key, and run."""

    def text_of(arguments: Mapping[str, Any]) -> str:
        return " ".join(map(str, arguments.values()))

    def pay(order: Any, amount: Any = 1) -> None: ...

    made = maker(text_of, function=pay)
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        (("A-1", 1), {}),
        (("A-1",), {}),
        (("A-1",), {"amount": 1}),
        ((), {"amount": 1, "order": "A-1"}),
    ]
    assert len({key_of(made, *args, **kwargs) for args, kwargs in calls}) == 1


def test_all_args_is_itself_in_every_process() -> None:
    """A policy that was pickled would no longer be recognised."""
    assert pickle.loads(pickle.dumps(ALL_ARGS)) is ALL_ARGS
    assert repr(ALL_ARGS) == "ALL_ARGS"


@given(st.text(min_size=LONGEST_TEXT, max_size=LONGEST_TEXT + 9), st.text(max_size=1))
def test_long_keys_are_digested_and_stay_apart(text: str, more: str) -> None:
    """A megabyte of JSON would be a key in Redis, or two long orders would be one."""
    made = maker("order", "pickle")
    assert len(key_of(made, text)) < LONGEST_TEXT
    assert key_of(made, text).startswith("sha256:")
    assert (key_of(made, text) == key_of(made, text + more)) == (not more)
    assert key_of(made, key_of(made, text)) != key_of(made, text)


def test_the_fingerprint_counts_every_argument() -> None:
    """A key that is used for another call would go unnoticed; or a real duplicate would be refused."""
    made = maker("order", "pickle")

    def fingerprint(*args: Any, **kwargs: Any) -> str:
        return made.fingerprint(made.bind(args, kwargs), serialised=True)

    assert fingerprint(1, 2) == fingerprint(order=1, amount=2) == fingerprint(1, 2, None)
    assert (
        len({fingerprint(1, 2), fingerprint(1, 3), fingerprint(1, 2, tenant=0), fingerprint(1, 2, 0, 0)}) == 4
    )
    assert fingerprint(1, 1j) == fingerprint(1, 2j) != fingerprint(1, Point(1))
