"""From a URL to a client: which URL an app means, what may be shown of it, how to connect.

==============================================  ==========================================
``redis://[user:password@]host:port/db``        one server
``rediss://...``                                the same over TLS
``unix:///path.sock?db=0``                      the same over a socket
``redis+sentinel://h1:p1,h2:p2/master/db``      whatever server the sentinels call master
``redis+cluster://h1:p1,h2:p2``                 a cluster
``rediss+sentinel://``, ``rediss+cluster://``   the same over TLS, the sentinels included
``memory://name``                               fakeredis in this process, for unit tests
==============================================  ==========================================

redis-py's own options can follow a ``?``, such as ``ssl_ca_certs=/etc/ssl/own.pem``.

Celery's own spellings (``redis+socket://``, ``sentinel://...;sentinel://...``, ``partial+...``) are
understood where the URL comes from the result backend or the broker.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

import redis
from redis.backoff import ConstantBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import parse_url
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry
from redis.sentinel import Sentinel

from celery_patterns.core.settings import setting
from celery_patterns.errors import PolicyError

if TYPE_CHECKING:
    from celery import Celery

CONNECT_TIMEOUT = 1.0
"""Seconds to wait for a connection."""
ANSWER_TIMEOUT = 2.0
"""Seconds to wait for an answer. A worker that waits longer for its lock does no work."""

SCHEMES = (
    "redis",
    "rediss",
    "unix",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
    "memory",
)
_CELERYS = {"redis+socket": "unix", "sentinel": "redis+sentinel"}
_SECRETS = ("password", "sentinel_password", "ssl_password")


def safe_url(url: str) -> str:
    """``url`` without its passwords, fit for logs, errors and ``repr``.

    Also a password that should have been percent-encoded is hidden whole: rather too much than a part.
    """
    shown = re.sub(rf"([?&](?:{'|'.join(_SECRETS)})=)[^&]*", r"\1**", url)
    if "://" not in shown:  # not a URL at all, but it may hold a password
        return re.sub(r"[^/]*@", "**@", shown)
    return re.sub(r"(://[^@/?#:]*):.*@", r"\1:**@", shown)


def without_secrets(text: str, url: str) -> str:
    """``text``, which comes from elsewhere, without the passwords in ``url``, however they are written."""
    login, at, _ = url.partition("://")[2].rpartition("@")
    found = re.findall(rf"[?&](?:{'|'.join(_SECRETS)})=([^&]*)", url)
    found += [login.partition(":")[2]] if at else []
    for secret in sorted({*found, *map(unquote, found)} - {""}, key=len, reverse=True):
        text = text.replace(secret, "**")
    return text


def store_url(app: Celery) -> tuple[str, dict[str, Any]]:
    """The URL that an app's settings mean, and the client options that go with it.

    Raises:
        PolicyError: No Redis is configured.
    """
    own = setting(app, "patterns_url", None)
    if own:
        if not isinstance(own, str) or own.partition("://")[0] not in SCHEMES:
            raise PolicyError(f"patterns_url={safe_url(str(own))!r}: use one of {', '.join(SCHEMES)}")
        return own, {}
    backend = (
        app.conf.result_backend,
        app.conf.get("result_backend_transport_options"),
        "redis_backend_use_ssl",
    )
    broker = (app.conf.broker_url, app.conf.get("broker_transport_options"), "broker_use_ssl")
    sources: tuple[tuple[Any, dict[str, Any] | None, str], ...] = (backend, broker)
    for url, transport, ssl in sources:
        first = url[0] if isinstance(url, (list, tuple)) and url else url
        translated = _translate(first, transport or {}) if isinstance(first, str) else None
        if translated is not None:
            return _with_tls(translated, _of_sentinels(translated, transport or {}), app.conf.get(ssl))
    raise PolicyError(
        "celery-patterns needs Redis or Valkey, and neither the result backend nor the broker is one: "
        'set app.conf.patterns_url, for example "redis://localhost:6379/0"'
    )


def _of_sentinels(url: str, transport: dict[str, Any]) -> dict[str, Any]:
    """What Celery was told about its sentinels, beside their password, which is in the URL."""
    told = {**(transport.get("sentinel_kwargs") or {})}
    told.pop("password", None)
    return {"sentinel_kwargs": told} if told and url.startswith("redis+sentinel:") else {}


def _with_tls(url: str, options: dict[str, Any], tls: Any) -> tuple[str, dict[str, Any]]:
    """Celery speaks TLS wherever its TLS options are set, also where the URL says ``redis://``.

    Not to sentinels, which have options of their own.
    """
    if not isinstance(tls, dict) or url.startswith("unix:"):
        return url, options
    if url.startswith("redis+sentinel:"):
        return url, {**options, "ssl": True, **tls}
    return re.sub("^rediss?", "rediss", url), {**options, **tls}


def _translate(url: str, transport: dict[str, Any]) -> str | None:
    """A result backend's or broker's URL as one of ours; ``None`` where it is not Redis."""
    url = url.removeprefix("partial+")
    first, *more = url.split(";")
    scheme, separator, rest = first.partition("://")
    scheme = _CELERYS.get(scheme, scheme)
    if not separator or scheme not in SCHEMES or scheme == "memory":
        return None
    if scheme == "unix":
        parts = urlsplit(first)
        db = dict(parse_qsl(parts.query)).get("virtual_host", "0").strip("/")
        return f"unix://{parts.netloc}{parts.path}?{urlencode({'db': db})}"
    if scheme == "redis+sentinel":
        return _translate_sentinel(rest, more, transport)
    return first


def _translate_sentinel(rest: str, more: list[str], transport: dict[str, Any]) -> str:
    master = transport.get("master_name")
    if not master:
        raise PolicyError('a sentinel:// URL needs "master_name" in its transport options')
    hosts, _, db = rest.partition("/")
    others = [one.partition("://")[2].partition("/")[0].rpartition("@")[2] for one in more]
    password = (transport.get("sentinel_kwargs") or {}).get("password")
    query = f"?sentinel_password={quote(password, safe='')}" if password else ""
    return f"redis+sentinel://{','.join([hosts, *others])}/{master}/{db.partition('?')[0] or 0}{query}"


def connect(url: str, options: dict[str, Any]) -> Any:
    """A new client.

    It asks again once when a connection breaks. A script may therefore run twice for one call:
    each is written so that the second run changes nothing. It does not ask again after a timeout,
    which would make a worker wait twice as long for a server that is not there.

    Raises:
        PolicyError: The URL cannot be read.
    """
    defaults: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "socket_timeout": ANSWER_TIMEOUT,
        "retry": Retry(ConstantBackoff(0.05), 1, supported_errors=(RedisConnectionError,)),
        "retry_on_error": [RedisConnectionError],  # without it redis-py 5 does not try again
        "max_connections": _MANY,
        **options,
    }
    scheme = url.partition("://")[0].replace("rediss+", "redis+")
    make = {"memory": _fake, "redis+sentinel": _sentinel, "redis+cluster": _cluster}.get(scheme, _single)
    try:
        return make(url, defaults)
    except TypeError as error:  # it names an argument of the connection's class
        raise PolicyError(f"{safe_url(url)!r} has an option that redis-py does not know: {error}") from None
    except ValueError:  # its text would hold a part of the password
        raise PolicyError(
            f"{safe_url(url)!r} cannot be read as a URL: is a character of the password not percent-encoded?"
        ) from None


_MANY = 2**31
"""As many connections as there are threads or greenlets: a refused one is no outage of the store."""


def _single(url: str, options: dict[str, Any]) -> Any:
    return _checked(redis.Redis.from_url(_python_spelling(url), **options))


def _checked(client: Any) -> Any:
    """``client``, having made a connection without connecting: an unknown option says so now."""
    client.connection_pool.make_connection()
    return client


def _query_options(parts: SplitResult, *, drop: tuple[str, ...] = ()) -> dict[str, Any]:
    """redis-py's options in a URL that is ours to read, and its ``rediss`` for them."""
    query = urlencode([(name, value) for name, value in parse_qsl(parts.query) if name not in drop])
    found = dict(parse_url(_python_spelling(f"redis://?{query}")))  # type: ignore[no-untyped-call]
    found.pop("host", None)
    return {"ssl": True, **found} if parts.scheme.startswith("rediss+") else found


def _python_spelling(url: str) -> str:
    """Celery writes ``ssl_cert_reqs=CERT_NONE`` where redis-py wants ``none``."""
    return re.sub(r"(ssl_cert_reqs=)CERT_(\w+)", lambda found: found[1] + found[2].lower(), url)


def _hosts(netloc: str, default_port: int) -> list[tuple[str, int]]:
    found = (urlsplit(f"//{one}") for one in netloc.split(","))
    return [(one.hostname or "localhost", one.port or default_port) for one in found]


def _credentials(netloc: str) -> tuple[dict[str, Any], str]:
    """The user and password in ``netloc``, and what is left of it."""
    login, _, hosts = netloc.rpartition("@")
    user, _, password = login.partition(":")
    found = {"username": unquote(user), "password": unquote(password)}
    return {name: value for name, value in found.items() if value}, hosts


def _sentinel(url: str, options: dict[str, Any]) -> Any:
    parts = urlsplit(url)
    login, hosts = _credentials(parts.netloc)
    master, _, db = parts.path.strip("/").partition("/")
    same = {
        name: options[name]
        for name in ("socket_connect_timeout", "socket_timeout", "retry", "retry_on_error")
    }
    extra = _query_options(parts, drop=("sentinel_password",))
    of_sentinels = {**same, **extra, **options.pop("sentinel_kwargs", {})}
    of_sentinels["password"] = dict(parse_qsl(parts.query)).get("sentinel_password")
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        _hosts(hosts, 26379), sentinel_kwargs=of_sentinels, **{**options, **extra}
    )
    for one in sentinel.sentinels:
        _checked(one)
    return _checked(sentinel.master_for(master, db=int(db or 0), **login))  # type: ignore[no-untyped-call]


def _cluster(url: str, options: dict[str, Any]) -> Any:
    parts = urlsplit(url)
    login, hosts = _credentials(parts.netloc)
    if int(redis.__version__.partition(".")[0]) < _RETRY_COUNTS_FOR_CLUSTERS:
        options = {**options, "cluster_error_retry_attempts": 1}
    nodes = [ClusterNode(host, port) for host, port in _hosts(hosts, 6379)]  # type: ignore[no-untyped-call]
    return RedisCluster(startup_nodes=nodes, **login, **{**options, **_query_options(parts)})


_RETRY_COUNTS_FOR_CLUSTERS = 6
"""The version of redis-py since which ``retry`` says how often a cluster's client asks again."""

_fake_servers: dict[str, Any] = {}


def _fake(url: str, _: dict[str, Any]) -> Any:
    """A client of the fake server with this URL; all clients of one process share it."""
    try:
        import fakeredis  # noqa: PLC0415 - only tests have it
    except ImportError as error:
        raise PolicyError('memory:// needs fakeredis: pip install "celery-patterns[test]"') from error
    server = _fake_servers.setdefault(url, fakeredis.FakeServer())
    return fakeredis.FakeRedis(server=server)
