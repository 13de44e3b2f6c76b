"""The configuration model, with each default in this one place.

The model is frozen and complete: with a Config, no other source is needed. `config_sources` reads
the values (file, `.env`, environment), `config_errors` words the mistakes. The account's keys are
not part of it; see `keys`.
"""

import os
import re
import socket
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from bridge.contract.stream_types import OWN_STREAMS, STREAM_SPECS
from bridge.contract.streams import parse_stream
from bridge.errors import ConfigError
from bridge.runtime.address import Address
from bridge.runtime.config_errors import ANY, Origins, Shape, sentences
from bridge.runtime.config_section import Section
from bridge.runtime.config_sources import is_setting, merged, read_yaml, variables_tree
from bridge.runtime.config_streams import StreamItem, at_least_one, default_streams
from bridge.runtime.environment import read_variables
from bridge.runtime.keyspace import MAX_SHARDS, KeySpace
from bridge.runtime.masking import masked_url
from bridge.runtime.nearest import did_you_mean
from bridge.runtime.patterns import Pattern, is_pattern, parse_pattern
from bridge.runtime.redis_url import has_replicas, is_cluster, parse_redis_url, tag_of, tagged
from bridge.runtime.share import Share
from bridge.runtime.time_range import HELP, point

DEFAULT_FILE = "config.yaml"
MOST_URL = 2048  # characters
EMBEDDED = "embedded"


def _exchange_url(*schemes: str) -> AfterValidator:
    def check(url: str) -> str:
        if not _is_plain_url(url, schemes):
            raise ValueError(
                f"must be a URL such as {schemes[0]}://host or {schemes[0]}://host:8443, without "
                "user, password, spaces, ? and #"
            )
        if _is_real(url) and urlsplit(url).scheme != schemes[0]:
            raise ValueError(
                f"must be {schemes[0]}://… for the real exchange: in the clear, others on the way "
                "can read the account and change prices"
            )
        return url.rstrip("/")

    return AfterValidator(check)


def _is_plain_url(url: str, schemes: Collection[str]) -> bool:
    if len(url) > MOST_URL or not url.isprintable() or re.search(r"[\s?#]", url):
        return False
    try:
        parts = urlsplit(url)
        is_placed = _is_host(parts.hostname or "") and parts.port != 0
    except ValueError:
        return False
    return parts.scheme in schemes and is_placed and "@" not in parts.netloc


def _is_host(host: str) -> bool:
    """Whether the host can be resolved. Raises ValueError for some that cannot."""
    if ":" in host or re.fullmatch(r"v[0-9a-f]+\..*", host) or re.fullmatch(r"[0-9.]+", host):
        ip_address(host.partition("%")[0])
    host.encode("idna")  # raises for a..b, which cannot be resolved
    return host.isascii() and host != ""


def _is_real(url: str) -> bool:
    return f".{urlsplit(url).hostname or ''}".endswith(".backpack.exchange")


class Exchange(Section):
    """Where the exchange is and how its sockets are kept open."""

    ws_url: Annotated[str, _exchange_url("wss", "ws")] = "wss://ws.backpack.exchange"
    rest_url: Annotated[str, _exchange_url("https", "http")] = "https://api.backpack.exchange"
    compression: bool = False
    connections: Annotated[int, Field(ge=1, le=64)] = 1
    connections_per_stream: Annotated[int, Field(ge=1, le=3)] = 1
    max_connection_age_s: Annotated[float, Field(ge=1)] | None = 43_200
    handshakes_per_s: Annotated[float, Field(ge=0.01)] = 2
    requests_per_s: Annotated[float, Field(ge=0.01)] = 10
    open_timeout_s: PositiveFloat = 10
    rest_timeout_s: PositiveFloat = 10
    ping_interval_s: Annotated[float, Field(ge=0.1)] = 20
    ping_timeout_s: PositiveFloat = 20
    reconnect_initial_s: PositiveFloat = 0.5
    reconnect_max_s: PositiveFloat = 30
    signature_window_ms: Annotated[int, Field(ge=1, le=60_000)] = 5000
    max_frame_bytes: PositiveInt = 4 * 1024 * 1024
    markets_every_s: Annotated[float, Field(ge=1)] = 60
    silence_s: Annotated[float, Field(ge=1)] | None = 30

    @property
    def is_real(self) -> bool:
        """Whether this is Backpack's own exchange, where real money moves."""
        return _is_real(self.ws_url) or _is_real(self.rest_url)

    @model_validator(mode="after")
    def _backoff_grows(self) -> Self:
        if self.reconnect_initial_s > self.reconnect_max_s:
            raise ValueError("reconnect_initial_s must not exceed reconnect_max_s")
        return self


def _redis_url(url: str) -> str:
    if url != EMBEDDED:
        parse_redis_url(url)
    return url


def _prefix(prefix: str, info: ValidationInfo) -> str:
    braces = re.findall(r"[{}]", prefix)
    if not prefix.isprintable() or re.search(r"[\s*?\[\]\\]", prefix) or len(braces) > 2:
        raise ValueError("must be without spaces and pattern characters, such as mine:")
    if braces and not tag_of(prefix):
        raise ValueError("may hold one hash tag, such as {mine}:, and no other braces")
    # All that scripts touch together must lie in one slot, so all keys of a Cluster have one tag.
    return tagged(prefix) if is_cluster(info.data.get("url", "")) else prefix


def _shards(shards: int, info: ValidationInfo) -> int:
    if shards > 1 and not is_cluster(info.data.get("url", "")):
        raise ValueError("may be more than 1 with a redis+cluster:// URL only")
    return shards


def _read_from(name: str, info: ValidationInfo) -> str:
    if name == "replica" and not has_replicas(info.data.get("url", "")):
        raise ValueError("may be replica with a redis+sentinel:// or redis+cluster:// URL only")
    return name


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class Redis(Section):
    """Which Redis, and how long to wait for it."""

    # repr=False: the URL may carry a password
    url: Annotated[str, AfterValidator(_redis_url)] = Field(
        default="redis://127.0.0.1:6379/0", repr=False
    )
    key_prefix: Annotated[str, AfterValidator(_prefix)] = Field("", validate_default=True)
    shards: Annotated[int, Field(ge=1, le=MAX_SHARDS), AfterValidator(_shards)] = 1
    read_from: Annotated[
        Literal["primary", "replica"], BeforeValidator(_lower), AfterValidator(_read_from)
    ] = "primary"
    connect_timeout_s: PositiveFloat = 3
    command_timeout_s: PositiveFloat = 10

    @property
    def is_embedded(self) -> bool:
        return self.url == EMBEDDED

    @property
    def keys(self) -> KeySpace:
        """The names of all keys under this prefix and shard count."""
        return KeySpace(self.key_prefix, self.shards)

    def at(self, changes: Mapping[str, str]) -> "Redis":
        """A copy with another `url`, or another `key_prefix`, which another URL may need. Raises
        ValidationError.
        """
        changed = {**self.model_dump(), **changes}
        if not is_cluster(changed["url"]):
            changed["shards"] = 1
        if not has_replicas(changed["url"]):
            changed["read_from"] = "primary"
        return Redis.model_validate(changed)


class Durability(Section):
    """When an entry counts as published: in the primary's memory, on replicas, or on its disk."""

    level: Annotated[Literal["memory", "replica", "fsynced"], BeforeValidator(_lower)] = "memory"
    replicas: Annotated[int, Field(ge=1, le=16)] = 1
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 1.0


class Publish(Section):
    """Batch size, hold times, and the buffer while Redis is unavailable."""

    batch_entries: Annotated[int, Field(ge=1, le=10_000)] = 256
    linger_ms: Annotated[float, Field(ge=0, le=100)] = 0
    hold_s: PositiveFloat = 2.0
    recover_s: PositiveFloat = 90.0  # two minutes' budgets of history
    buffer_bytes: Annotated[int, Field(ge=1024 * 1024)] = 256 * 1024 * 1024
    drain_s: PositiveFloat = 5
    durability: Durability = Durability()

    @property
    def linger_s(self) -> float:
        return self.linger_ms / 1000


class Snapshots(Section):
    """How often a depth stream carries the whole book."""

    depth_levels: Literal[5, 10, 20, 50, 100, 500, 1000] = 1000
    depth_every_updates: Annotated[int, Field(ge=0)] = 50_000
    depth_every_s: Annotated[int, Field(ge=0)] = 0


class Keep(Section):
    """Retention of a stream: a number of entries, an age, or both; null is off."""

    max_entries: PositiveInt | None = None
    max_age_s: PositiveInt | None = None


class SlowGroups(Section):
    """Consumer groups whose unread entries outlive retention, while there is memory for them."""

    wait_for: tuple[Annotated[str, Field(min_length=1, max_length=128)], ...] = ()
    until_bytes: Annotated[int, Field(ge=1024 * 1024)] = 1024 * 1024 * 1024


def _as_text(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


_Text = Annotated[str, Field(min_length=1, max_length=128)]
GROUP_NAME = r"^[A-Za-z0-9._-]{1,128}$"


def _place(text: str) -> str:
    try:
        point(text, datetime.now(UTC))
    except ConfigError:
        raise ValueError(f"must be {HELP}") from None
    return text


class ConsumerGroup(Section):
    """How one consumer group's workers run; an omitted setting keeps the consumer's own default."""

    streams: Annotated[tuple[_Text, ...], Field(min_length=1)] | None = None
    options: dict[str, Annotated[str, BeforeValidator(_as_text)]] = Field(default_factory=dict)
    start: Annotated[_Text, AfterValidator(_place)] | None = None  # where a new group begins
    lease_s: Annotated[float, Field(ge=0.2, le=600)] | None = None
    attempts: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    on_failure: Literal["dead_letter", "block"] | None = None
    on_undecodable: Literal["skip", "dead_letter"] | None = None
    time_limit_s: Annotated[float, Field(ge=0.01, le=86_400)] | None = None
    batch_entries: Annotated[int, Field(ge=1, le=10_000)] | None = None
    batch_wait_s: Annotated[float, Field(ge=0, le=60)] | None = None
    concurrency: Annotated[int, Field(ge=1, le=1000)] | None = None
    rate_limit: Annotated[float, Field(ge=0.1)] | None = None
    join_wait_s: Annotated[float, Field(ge=0, le=60)] | None = None

    def settings(self) -> dict[str, Any]:
        """The given settings that are attributes of the consumer's class, by name."""
        apart = {"streams", "options", "start", "lease_s"}
        return self.model_dump(exclude=apart, exclude_none=True)


RETENTION_ENTRIES: Mapping[str, int] = {
    **{kind.value: spec.retention_entries for kind, spec in STREAM_SPECS.items()},
    **{own.name: own.retention_entries for own in OWN_STREAMS},
}


def _over_retention_defaults(given: object) -> object:
    """Given values laid over the defaults of each stream type."""
    if not isinstance(given, Mapping):
        return given
    for name in given:
        if name not in RETENTION_ENTRIES:
            hint = did_you_mean(str(name), RETENTION_ENTRIES)
            raise ValueError(f"names {name!r}, which is no type of stream{hint}")
    whole: dict[str, object] = {k: {"max_entries": n} for k, n in RETENTION_ENTRIES.items()}
    return merged(whole, dict(given))


def _possible_path(path: Path) -> Path:
    try:
        is_possible = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        is_possible = False
    if not is_possible:
        raise ValueError("holds a character that no path can have")
    return path


_Folder = Annotated[Path, AfterValidator(_possible_path)]


class Journal(Section):
    """Received frames on disk: for Redis outages, crashes, recording and replay."""

    enabled: bool = True
    dir: _Folder = Path("data/journal")
    max_bytes: Annotated[int, Field(ge=1024 * 1024)] = 2 * 1024 * 1024 * 1024
    max_age_s: PositiveInt = 86_400
    segment_bytes: Annotated[int, Field(ge=64 * 1024)] = 16 * 1024 * 1024
    fsync: Literal["off", "interval", "batch"] = "interval"
    private: bool = True


class Embedded(Section):
    """The Redis server that this project can start by itself."""

    data_dir: _Folder = Path("data/redis")
    port: Annotated[int, Field(ge=0, le=65_535)] = 6379
    maxmemory_mb: PositiveInt | None = None


def _written_address(text: str) -> str:
    Address.parse(text)
    return text


class Metrics(Section):
    """Pages for monitors and supervisors: /metrics, /healthz, /readyz. No authentication."""

    listen: Annotated[str, AfterValidator(_written_address)] | None = None
    per_stream: bool = False

    @property
    def address(self) -> Address | None:
        """Where to listen; None: not at all."""
        return Address.parse(self.listen) if self.listen is not None else None


class Log(Section):
    """Level and form of log lines; auto is console on a terminal, json elsewhere."""

    level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = "info"
    format: Annotated[Literal["auto", "console", "json"], BeforeValidator(_lower)] = "auto"


_Member = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


class FleetShare(Section):
    """Which part of the streams this bridge receives, where several bridges share them: the member
    `index` of `of`, or `me` of `members`.
    """

    of: Annotated[int, Field(ge=1, le=64)] | None = None
    index: Annotated[int, Field(ge=0, le=63)] | None = None
    members: Annotated[tuple[_Member, ...], Field(min_length=1, max_length=64)] | None = None
    me: _Member | None = None
    handover_s: PositiveFloat | None = 600

    @property
    def value(self) -> Share | None:
        """None: this bridge receives all streams."""
        if self.of is not None:
            return Share(tuple(map(str, range(self.of))), str(self.index))
        if self.members is not None and self.me is not None:
            return Share(self.members, self.me)
        return None

    @model_validator(mode="after")
    def _is_one_of_two_forms(self) -> Self:
        by_number = {"of": self.of, "index": self.index}
        by_name = {"members": self.members, "me": self.me}
        given = [form for form in (by_number, by_name) if set(form.values()) != {None}]
        if len(given) > 1 or any(None in form.values() for form in given):
            raise ValueError("must be both `of` and `index`, or both `members` and `me`")
        share = self.value
        if share is None:
            return self
        if share.me not in share.members:
            known = f"0 to {len(share.members) - 1}" if self.of else ", ".join(share.members)
            raise ValueError(f"{'index' if self.of else 'me'} must be one of {known}")
        if len(set(share.members)) < len(share.members):
            raise ValueError("members must be different names")
        return self


def _hostname() -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:64] or "bridge"


class Config(Section):
    """The whole of config.yaml."""

    exchange: Exchange = Exchange()
    streams: Annotated[tuple[StreamItem, ...], AfterValidator(at_least_one)] = Field(
        default_factory=default_streams
    )
    share: FleetShare = FleetShare()
    redis: Redis = Redis()
    publish: Publish = Publish()
    snapshots: Snapshots = Snapshots()
    retention: Annotated[dict[str, Keep], BeforeValidator(_over_retention_defaults)] = Field(
        default_factory=dict
    )
    slow_groups: SlowGroups = SlowGroups()
    consumers: dict[Annotated[str, Field(pattern=GROUP_NAME)], ConsumerGroup] = Field(
        default_factory=dict
    )
    journal: Journal = Journal()
    embedded: Embedded = Embedded()
    instance: str = Field(default_factory=_hostname, pattern=r"^[A-Za-z0-9._-]{1,64}$")
    metrics: Metrics = Metrics()
    log: Log = Log()

    @property
    def stream_names(self) -> tuple[str, ...]:
        """Full names of all streams listed by name, in the order written, without duplicates."""
        return tuple(name for name in self._stream_items() if not is_pattern(name))

    @property
    def stream_patterns(self) -> tuple[Pattern, ...]:
        """The patterns; the exchange's list of markets decides which streams they match."""
        return tuple(parse_pattern(name) for name in self._stream_items() if is_pattern(name))

    @property
    def my_stream_names(self) -> tuple[str, ...]:
        """The named streams that this bridge receives, where a fleet shares them."""
        share = self.share.value
        if share is None:
            return self.stream_names
        return tuple(name for name in self.stream_names if share.is_mine(parse_stream(name)))

    def _stream_items(self) -> dict[str, None]:
        names: dict[str, None] = {}
        for item in self.streams:
            names |= dict.fromkeys((item,) if isinstance(item, str) else item.names())
        return names

    def keep(self, kind: str) -> Keep:
        """Retention of a stream type, of `gaps` or of `quarantine`."""
        return self.retention[kind]

    def masked(self) -> dict[str, Any]:
        """Everything as plain values, for printing: passwords in URLs are replaced."""
        plain = self.model_dump(mode="json")
        plain["redis"]["url"] = masked_url(self.redis.url)
        return plain

    def reloaded(self, new: "Config") -> "Config":
        """This configuration with the settings of `new` that take effect at once. Depth's retention
        waits for the next start where it fits the new snapshot settings only.
        """
        retention = dict(new.retention)
        if any(_flaws_of_snapshots(self.snapshots, retention["depth"])):
            retention["depth"] = self.retention["depth"]
        return self.model_copy(
            update={"streams": new.streams, "share": new.share, "retention": retention}
        )

    def takes_effect(self, old: "Config") -> tuple[str, ...]:
        """Changed settings that take effect at once."""
        new = old.reloaded(self)
        kept = (
            f"retention.{kind}"
            for kind, keep in new.retention.items()
            if keep != old.retention.get(kind)
        )
        lists = (name for name in ("streams", "share") if getattr(new, name) != getattr(old, name))
        return (*lists, *kept)

    def needs_restart(self, old: "Config") -> tuple[str, ...]:
        """Changed settings that take effect at the next start only."""
        live = ("streams", "share", "retention", "consumers")  # the last is not the bridge's own
        is_depth_kept = old.reloaded(self).retention != self.retention
        return (("retention.depth",) if is_depth_kept else ()) + tuple(
            f"{section}.{name}" if isinstance(mine, Section) else section
            for section in type(self).model_fields
            if section not in live and (mine := getattr(self, section)) != getattr(old, section)
            for name in (type(mine).model_fields if isinstance(mine, Section) else (section,))
            if not isinstance(mine, Section)
            or getattr(mine, name) != getattr(getattr(old, section), name)
        )

    @model_validator(mode="before")
    @classmethod
    def _all_commented_out_is_default(cls, given: object) -> object:
        if not isinstance(given, Mapping):
            return given
        return {k: v for k, v in given.items() if v is not None or k == "streams"}

    @model_validator(mode="after")
    def _two_snapshots_are_kept(self) -> Self:
        for flaw in _flaws_of_snapshots(self.snapshots, self.retention["depth"]):
            raise ValueError(flaw)
        return self


def _flaws_of_snapshots(snapshots: Snapshots, keep: Keep) -> Iterator[str]:
    """Why depth's retention does not keep two snapshots."""
    for limit, kept, setting in (
        ("max_entries", keep.max_entries, "depth_every_updates"),
        ("max_age_s", keep.max_age_s, "depth_every_s"),
    ):
        every = getattr(snapshots, setting)
        if kept is not None and not every:
            yield (
                f"retention.depth.{limit} ({kept}) trims books away, and snapshots.{setting} "
                f"is 0 (off): give the latter less than {-(-kept // 2)}, or the former null"
            )
        elif kept is not None and kept <= 2 * every:
            yield (
                f"retention.depth.{limit} ({kept}) cannot hold two depth snapshots: make it "
                f"more than {2 * every}, twice snapshots.{setting}, or lower that"
            )


def load_config(
    path: str | Path | None = None,
    env_file: str | Path | None = ".env",
    environ: Mapping[str, str] = os.environ,
) -> Config:
    """The configuration: environment over `.env` over the file over the defaults.

    Without a path, `config.yaml` is read where it exists; `BRIDGE_…_FILE` names a file with the
    value. Raises ConfigError with one line for each mistake.
    """
    chosen = Path(DEFAULT_FILE if path is None else path)
    origins = Origins(str(chosen))
    from_file: dict[str, object] = {}
    if path is not None or chosen.exists():
        from_file = read_yaml(chosen, origins)
    shape = config_shape()
    from_outside = variables_tree(read_variables(environ, env_file, is_setting), shape, origins)
    try:
        return Config.model_validate(merged(from_file, from_outside))
    except ValidationError as error:
        raise ConfigError("\n".join(sentences(error, origins, shape))) from None


def config_shape() -> Shape:
    """The names of all settings as a tree; None marks a leaf."""
    shape = _shape_of(Config)
    shape["consumers"] = {ANY: _shape_of(ConsumerGroup)}
    shape["retention"] = {kind: _shape_of(Keep) for kind in RETENTION_ENTRIES}
    return shape


def _shape_of(model: type[BaseModel]) -> Shape:
    return {
        name: _shape_of(field.annotation)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        else None
        for name, field in model.model_fields.items()
    }
