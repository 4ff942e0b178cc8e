"""URLs: which one an app means, what may be shown of it, what is made of it."""

from typing import Any

import pytest
import redis
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st

from celery_patterns import PolicyError
from celery_patterns.core.urls import connect, safe_url, store_url, without_secrets

SECRET = "s3/cr%t@:#?&"
QUOTED = "s3%2Fcr%25t%40%3A%23%3F%26"


class Settings:
    """What `django.conf.settings` looks like to Celery: attributes in capitals."""

    def __init__(self, **settings: Any) -> None:
        self.__dict__.update(settings)


def django_app(**settings: Any) -> Celery:
    app = Celery("shop")
    app.config_from_object(Settings(**settings), namespace="CELERY")
    return app


# --- what an app means -----------------------------------------------------------------------------------


def test_an_apps_own_setting_comes_first() -> None:
    """State would go to the broker, though a server for it was named."""
    app = Celery("shop", broker="redis://broker", backend="redis://backend")
    app.conf.patterns_url = "redis://own:6380/3"
    assert store_url(app) == ("redis://own:6380/3", {})


def test_the_result_backend_comes_before_the_broker() -> None:
    """Two services with a broker in common would share their state."""
    assert store_url(Celery("shop", broker="redis://broker/1", backend="redis://backend/2"))[0] == (
        "redis://backend/2"
    )
    assert store_url(Celery("shop", broker="redis://broker/1", backend="rpc://"))[0] == "redis://broker/1"
    assert store_url(Celery("shop", broker="amqp://broker", backend="redis://backend/2"))[0] == (
        "redis://backend/2"
    )


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({"CELERY_PATTERNS_URL": "redis://own/1", "CELERY_BROKER_URL": "redis://broker"}, "redis://own/1"),
        ({"CELERY_BROKER_URL": "amqp://", "CELERY_RESULT_BACKEND": "redis://backend/1"}, "redis://backend/1"),
        ({"CELERY_BROKER_URL": "redis://broker/1", "BROKER_URL": "redis://not-this"}, "redis://broker/1"),
    ],
)
def test_djangos_settings_are_understood(settings: dict[str, str], url: str) -> None:
    """A Django project would have to configure the library apart from Celery."""
    assert store_url(django_app(**settings))[0] == url


@pytest.mark.parametrize(
    ("celerys", "ours"),
    [
        ("redis://h:6380/3", "redis://h:6380/3"),
        ("redis://", "redis://"),
        ("partial+redis://h/1", "redis://h/1"),
        ("rediss://h/1?ssl_cert_reqs=CERT_REQUIRED", "rediss://h/1?ssl_cert_reqs=CERT_REQUIRED"),
        ("redis+socket:///run/redis.sock", "unix:///run/redis.sock?db=0"),
        ("redis+socket:///run/redis.sock?virtual_host=/3", "unix:///run/redis.sock?db=3"),
        ("redis+socket://:pw@/run/redis.sock?virtual_host=3", "unix://:pw@/run/redis.sock?db=3"),
        ("redis://a:1/2;redis://b:1/2", "redis://a:1/2"),
    ],
)
def test_celerys_spellings_are_translated(celerys: str, ours: str) -> None:
    """A URL that Celery understands would have to be written a second time."""
    assert store_url(Celery("shop", broker="amqp://", backend=celerys)) == (ours, {})
    assert store_url(Celery("shop", broker=celerys))[0] == ours


@pytest.mark.parametrize(
    ("celerys", "ours"),
    [
        ("sentinel://h1:26379/2", "redis+sentinel://h1:26379/main/2"),
        (
            "sentinel://:p%40w@h1:1/2;sentinel://:p%40w@h2:2/2;sentinel://h3",
            "redis+sentinel://:p%40w@h1:1,h2:2,h3/main/2",
        ),
        ("sentinel://h1:1;sentinel://h2:2/", "redis+sentinel://h1:1,h2:2/main/0"),
    ],
)
def test_sentinels_are_translated(celerys: str, ours: str) -> None:
    """State would go to one server, and be lost when the sentinels make another the master."""
    app = Celery("shop", broker=celerys)
    app.conf.broker_transport_options = {"master_name": "main"}
    assert store_url(app) == (ours, {})
    app = Celery("shop", broker="amqp://", backend=celerys)
    app.conf.result_backend_transport_options = {
        "master_name": "main",
        "sentinel_kwargs": {"password": SECRET},
    }
    assert store_url(app) == (f"{ours}?sentinel_password={QUOTED}", {})


def test_sentinels_need_the_masters_name() -> None:
    """The first use would fail with a message about nothing that the user wrote."""
    with pytest.raises(PolicyError, match="master_name"):
        store_url(Celery("shop", broker="sentinel://h1:26379/2"))


def test_a_list_of_brokers_stands_for_the_first() -> None:
    """An app with a second broker to fall back to would be told that it has no Redis."""
    app = Celery("shop")
    app.conf.broker_url = ["redis://a/1", "redis://b/1"]
    assert store_url(app)[0] == "redis://a/1"


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_tls_options_of_celery_are_obeyed(scheme: str) -> None:
    """A server that takes TLS only would be spoken to in clear text, passwords first."""
    app = Celery("shop", broker="amqp://", backend=f"{scheme}://h/1")
    app.conf.redis_backend_use_ssl = {"ssl_ca_certs": "/ca.pem"}
    assert store_url(app) == ("rediss://h/1", {"ssl_ca_certs": "/ca.pem"})
    app = Celery("shop", broker=f"{scheme}://h/1")
    app.conf.broker_use_ssl = {"ssl_ca_certs": "/ca.pem"}
    assert store_url(app) == ("rediss://h/1", {"ssl_ca_certs": "/ca.pem"})


def test_tls_options_of_celery_reach_what_the_sentinels_call_master() -> None:
    """A server that takes TLS only would be spoken to in clear text; its sentinels may not speak it."""
    app = Celery("shop", broker="amqp://", backend="sentinel://h1:1/2")
    app.conf.result_backend_transport_options = {
        "master_name": "main",
        "sentinel_kwargs": {"ssl": True, "password": SECRET},
    }
    url, options = store_url(app)
    assert (url, options) == (
        f"redis+sentinel://h1:1/main/2?sentinel_password={QUOTED}",
        {"sentinel_kwargs": {"ssl": True}},
    )
    app.conf.redis_backend_use_ssl = {"ssl_cert_reqs": "none"}
    url, options = store_url(app)
    assert options == {"ssl": True, "ssl_cert_reqs": "none", "sentinel_kwargs": {"ssl": True}}
    pool = connect(url, options).connection_pool
    (sentinel,) = pool.sentinel_manager.sentinels
    assert issubclass(pool.connection_class, redis.SSLConnection)
    assert issubclass(sentinel.connection_pool.connection_class, redis.SSLConnection)
    assert sentinel.connection_pool.connection_kwargs["password"] == SECRET


@pytest.mark.parametrize(
    ("broker", "backend"),
    [
        ("amqp://", None),
        ("memory://", "cache+memory://"),
        ("sqs://", "db+sqlite:///x"),
        ("amqp://", "rpc://"),
    ],
)
def test_an_app_without_redis_is_told_what_to_set(broker: str, backend: str | None) -> None:
    """Its first task would fail with a refused connection to localhost."""
    with pytest.raises(PolicyError, match=r"patterns_url.*redis://"):
        store_url(Celery("shop", broker=broker, backend=backend))


@pytest.mark.parametrize("url", [f"http://user:{SECRET}@h", "localhost:6379", 6379], ids=repr)
def test_a_setting_of_another_kind_is_refused_without_its_password(url: Any) -> None:
    """A mistake in a setting would put its password into the log."""
    app = Celery("shop")
    app.conf.patterns_url = url
    with pytest.raises(PolicyError, match=r"patterns_url=.*use one of redis, rediss, unix") as caught:
        store_url(app)
    assert SECRET not in str(caught.value)


# --- what may be shown -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://user@h:6379/0", "redis://user@h:6379/0"),
        ("redis://:pw@h:6379/0", "redis://:**@h:6379/0"),
        ("rediss://user:pw@h/0?ssl_cert_reqs=none", "rediss://user:**@h/0?ssl_cert_reqs=none"),
        ("unix://:pw@/run/r.sock?db=1", "unix://:**@/run/r.sock?db=1"),
        ("redis://h/0?password=pw&db=1", "redis://h/0?password=**&db=1"),
        (
            "redis+sentinel://:pw@h1:1,h2:2/main/0?sentinel_password=pw2",
            "redis+sentinel://:**@h1:1,h2:2/main/0?sentinel_password=**",
        ),
        ("redis://:p@w@h/0", "redis://:**@h/0"),
        ("sentinel://:pw@h1;sentinel://:pw@h2", "sentinel://:**@h2"),
    ],
)
def test_a_url_is_shown_without_its_passwords(url: str, shown: str) -> None:
    """A log, an error report or a shell's history would hold the password."""
    assert safe_url(url) == shown


TEMPLATES = [
    "redis://:{}@h:6379/0",
    "rediss://user:{}@h/0?ssl_cert_reqs=none",
    "redis+sentinel://user:{}@h1:26379,h2/main/0?sentinel_password={}",
    "redis+cluster://:{}@h1:1,h2:2",
    "redis://h/0?password={}&db=1",
    "rediss://h/0?db=1&ssl_password={}",
    "redis://user:{}@h/0?password={}",
]


@given(st.sampled_from(TEMPLATES), st.text("@:/?#%&=;. é", max_size=12))
def test_no_part_of_a_password_is_shown_however_it_is_written(template: str, around: str) -> None:
    """People forget to percent-encode; the part after the first odd character would be in the log."""
    inside_query = "password={" in template
    around = around.replace("&", "") if inside_query else around
    assert "s3cret" not in safe_url(template.replace("{}", f"s3cret{around}s3cret"))


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("written", [SECRET, QUOTED])
def test_a_text_from_elsewhere_loses_the_passwords(template: str, written: str) -> None:
    """An error of the client that quotes its arguments would bring the password into the log after all."""
    url = template.replace("{}", QUOTED)
    assert (
        without_secrets(f"cannot log in with {written!r} at h:6379", url)
        == "cannot log in with '**' at h:6379"
    )


def test_a_text_about_a_url_without_passwords_is_left_alone() -> None:
    """Every error message would be mangled, or every one would lose its cause."""
    assert without_secrets("Error 111 connecting to h:6379", "redis://user@h:6379/0") == (
        "Error 111 connecting to h:6379"
    )


# --- what is made of it ----------------------------------------------------------------------------------


def settings_of(url: str) -> dict[str, Any]:
    settings: dict[str, Any] = connect(url, {}).connection_pool.connection_kwargs
    return settings


@pytest.mark.parametrize(
    "url",
    [
        f"redis://user:{QUOTED}@h:6379/3",
        f"rediss://user:{QUOTED}@h:6379/3?ssl_cert_reqs=CERT_NONE",
        f"unix://user:{QUOTED}@/run/r.sock?db=3",
        f"redis+sentinel://user:{QUOTED}@h1:1,h2:2/main/3",
        f"redis://h:6379/3?username=user&password={QUOTED}",
    ],
)
def test_passwords_are_decoded_and_waits_are_short(url: str) -> None:
    """A password with a slash would be refused by the server; a dead server would block a worker."""
    settings = settings_of(url)
    assert (settings["username"], settings["password"], settings["db"]) == ("user", SECRET, 3)
    assert 0 < settings["socket_timeout"] <= 2
    assert 0 < settings["socket_connect_timeout"] <= 1


def test_sentinels_have_their_own_password_and_short_waits() -> None:
    """The sentinels would refuse the master's password, or a dead one would block a worker."""
    url = f"redis+sentinel://:master@[::1]:26380,h2/main?sentinel_password={QUOTED}"
    sentinels = connect(url, {}).connection_pool.sentinel_manager.sentinels
    settings = [one.connection_pool.connection_kwargs for one in sentinels]
    assert [(one["host"], one["port"]) for one in settings] == [("::1", 26380), ("h2", 26379)]
    assert {one["password"] for one in settings} == {SECRET}
    assert all(0 < one["socket_connect_timeout"] <= 1 and 0 < one["socket_timeout"] <= 2 for one in settings)


def test_options_of_the_app_reach_the_client() -> None:
    """TLS certificates that Celery is given would not be used."""
    client = connect("rediss://h/1", {"ssl_ca_certs": "/ca.pem"})
    assert client.connection_pool.connection_kwargs["ssl_ca_certs"] == "/ca.pem"


def test_a_url_says_that_sentinels_and_master_speak_tls() -> None:
    """Who sets `patterns_url` would have no way to say so."""
    url = "rediss+sentinel://h1,h2/main?ssl_cert_reqs=CERT_NONE&sentinel_password=pw"
    pool = connect(url, {}).connection_pool
    for one in (pool, *(one.connection_pool for one in pool.sentinel_manager.sentinels)):
        assert issubclass(one.connection_class, redis.SSLConnection)
        assert one.connection_kwargs["ssl_cert_reqs"] == "none"


@pytest.mark.parametrize("scheme", ["redis", "rediss", "redis+sentinel"])
def test_an_unknown_option_of_a_url_is_refused_by_name(scheme: str) -> None:
    """A typing error would come up as a TypeError of the first task that runs."""
    with pytest.raises(PolicyError, match="'socket_timeot'"):
        connect(
            f"{scheme}://h:1/main?socket_timeot=3" if "+" in scheme else f"{scheme}://h?socket_timeot=3", {}
        )


@pytest.mark.parametrize(
    "url",
    [
        "redis://:s3cret/tail@h:6379/0",
        "redis+sentinel://:s3cret/tail@h:1/main",
        "redis+cluster://:s3cret/tail@h:1",
        "redis://h:s3cret/0",
        "redis+sentinel://h/main/s3cret",
        "redis://[s3cret",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_its_password(url: str) -> None:
    """The parser's own message quotes a part of the password."""
    with pytest.raises(PolicyError, match="percent-encoded") as caught:
        connect(url, {})
    error: BaseException | None = caught.value
    assert error is not None
    assert error.__suppress_context__
    assert error.__cause__ is None
    if "@" in url:
        assert "s3cret" not in str(error)
        assert "tail" not in str(error)


def test_memory_is_shared_by_all_clients_of_one_url() -> None:
    """The web process's test client and the task under test would not see each other's state."""
    one, same, other = (connect(url, {}) for url in ("memory://a", "memory://a", "memory://b"))
    one.set("key", "value")
    assert same.get("key") == b"value"
    assert other.get("key") is None


def test_a_malformed_url_shows_no_password() -> None:
    """A forgotten colon would put the password into the log."""
    assert "s3cr3t" not in safe_url("redis//user:s3cr3t@host:6379/0")
    assert "s3cr3t" not in safe_url("user:s3cr3t@host")
