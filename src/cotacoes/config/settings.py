"""The settings of every process, each with its default, unit and range."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from cotacoes.config.formats import (
    Coins,
    Dsn,
    Hosts,
    HttpUrl,
    Origins,
    Pairs,
    RedisUrl,
    Source,
    Speed,
    Token,
    Venues,
    VenueSymbols,
    VenueUrls,
)
from cotacoes.errors import SettingError
from cotacoes.model.live_message import CHANNEL_PREFIX

PREFIX = "COTACOES_"

LOOPBACK = ("127.0.0.1", "::1", "localhost")

# in the order in which a quote meets them; the source decides which of the first two run
HTTP_SERVICES = ("external_service", "feed_service", "quote_service", "aggregator_service", "gateway_service")
FRAMES_SUFFIX = ".frames.gz"  # of a file of recorded frames
PORT_OFFSETS = {
    "gateway_service": 0,
    "external_service": 1,
    "quote_service": 2,
    "aggregator_service": 3,
    "feed_service": 4,
    "redis": 10,
    "shard1": 11,
    "shard2": 12,
}


class Settings(BaseModel):
    """All settings. Durations and sizes end in their unit; an empty URL means this machine, next to `port_base`."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    # where things are
    host: str = Field("127.0.0.1", description="address on which the HTTP services listen")
    allow_public: bool = Field(False, description="permission to listen on an address beyond loopback")
    allowed_hosts: Hosts = Field(
        "", description="further host names of the services, beside loopback names and `host`: HOST,…"
    )
    port_base: int = Field(8000, ge=1024, le=65000, description="port of the gateway; the others follow from it")
    data: Path = Field(Path(".cotacoes"), description="folder of the local log, and of everything that `up` stores")
    redis_url: RedisUrl = Field("", description="URL of Redis or Valkey; if empty, that of `cotacoes up`")
    channel_prefix: str = Field(
        CHANNEL_PREFIX,
        pattern=r"^[A-Za-z0-9._-]{1,32}(:[A-Za-z0-9._-]{1,32}){0,3}$",
        description="prefix of the channels PREFIX:COIN; systems that share a Redis need different ones, even in "
        "different databases",
    )
    shard1_dsn: Dsn = Field("", description="DSN of shard1's PostgreSQL database")
    shard2_dsn: Dsn = Field("", description="DSN of shard2's PostgreSQL database")
    gateway_url: HttpUrl = Field("", description="URL of gateway_service; if empty, on this machine")
    external_url: HttpUrl = Field("", description="URL of external_service, or of a source with the same `/quote`")
    feed_url: HttpUrl = Field("", description="URL of feed_service; if empty, on this machine")
    quote_url: HttpUrl = Field("", description="URL of quote_service; if empty, on this machine")
    aggregator_url: HttpUrl = Field("", description="URL of aggregator_service; if empty, on this machine")
    admin_token: Token = Field(
        SecretStr(""), description="bearer token of administrative routes; if empty, they are closed"
    )
    coins: Coins = Field("bitcoin:shard1,ethereum:shard2", description="coins of a new directory: COIN:SHARD,…")

    # external_service
    source: Source = Field(
        "sim",
        description="source of prices: sim, a simulated market; replay:PATH[,PATH…], recordings; exchanges, real ones; "
        "venues, simulated exchanges",
    )
    speed: Speed = Field(
        1.0, description="speed relative to the clock, 0.01 to 1000, or max: a tape as fast as it is read"
    )
    loop: bool = Field(False, description="restart of a replay at its end")
    replay_price: Literal["mid", "trade"] = Field("mid", description="price if a recording has both: mid or trade")
    replay_times: Literal["shifted", "original"] = Field(
        "shifted", description="times of a replay: shifted to now, or original"
    )
    replay_pairs: Pairs = Field(
        "", description="further pairs of recordings: PAIR:COIN:CURRENCY,… as in SOLUSDT:solana:USDT"
    )
    seed: int = Field(1, ge=0, le=2**63 - 1, description="seed of the simulated market and of the injected faults")
    failure_rate: float = Field(0.2, ge=0, le=1, description="share of requests answered with 500 or 503")
    tick_ms: int = Field(250, ge=1, le=60_000, description="milliseconds between two prices of the simulated market")

    # feed_service
    venues: Venues = Field(
        "binance,coinbase,kraken,bitstamp,okx,bybit", description="venues whose books make the price: VENUE,…"
    )
    venue_urls: VenueUrls = Field(
        "", description="addresses of venues in place of their own: VENUE=wss://…,…, for a mirror or a test"
    )
    venue_symbols: VenueSymbols = Field(
        "",
        description="symbols of coins that the table of venues lacks or has wrong: VENUE:COIN:SYMBOL,… as in "
        "kraken:solana:SOL/USD; without a symbol, the coin is left out there",
    )

    record_venues: bool = Field(
        False, description="recording of each venue's price, once a second, as a series of its own: COIN-VENUE"
    )

    # quote_service
    source_mode: Literal["latest", "tape"] = Field(
        "latest", description="latest: poll the newest prices; tape: record every price"
    )
    poll_interval_s: float = Field(1.0, ge=0.005, le=60, description="seconds between two polls of the source")
    fetch_deadline_s: float = Field(
        0.8, ge=0.01, le=30, description="seconds for one call to the source; below the poll interval"
    )
    fetch_attempts: int = Field(2, ge=1, le=5, description="maximum number of calls in one poll, the first included")
    fetch_bytes_max: int = Field(
        1_048_576, ge=1024, le=10_000_000, description="maximum size of an answer of the source in bytes"
    )
    breaker_failures: int = Field(5, ge=1, le=1000, description="failures in a row that open the circuit")
    breaker_failure_rate: float = Field(
        0.5, gt=0, le=1, description="share of failures in 100 calls that opens it, too"
    )
    breaker_open_s: float = Field(3.0, ge=0.05, le=600, description="seconds for which the circuit stays open at first")
    breaker_open_max_s: float = Field(
        10.0, ge=0.05, le=3600, description="maximum open time in seconds; it doubles after each failed probe"
    )
    breaker_probes: int = Field(2, ge=1, le=100, description="probes that a half-open circuit permits")
    fresh_s: float = Field(5.0, gt=0, le=3600, description="age in seconds up to which a quote is fresh")
    age_max_s: float = Field(300.0, gt=0, le=86_400, description="age in seconds beyond which a quote is not current")
    jump_factor_max: float = Field(
        10.0, gt=1, le=1e6, description="ratio of two prices within `jump_window_s` beyond which the newer is rejected"
    )
    jump_window_s: float = Field(
        300.0, gt=0, le=86_400, description="seconds for which a price is compared with the next ones"
    )
    jump_confirm_prices: int = Field(10, ge=1, le=10_000, description="prices in a row that confirm such a jump")
    jump_confirm_s: float = Field(30.0, ge=0, le=86_400, description="seconds that these prices must span")
    accept_clock: bool = Field(False, description="permission to start more than a day behind the stored times")
    log_quota_bytes: int = Field(
        1_073_741_824, ge=1_048_576, le=2**50, description="maximum size of the local log in bytes"
    )
    log_kept_s: float = Field(
        3600.0,
        ge=0,
        le=604_800,
        description="seconds for which delivered quotes stay in the log, up to half of its quota",
    )
    publish_wait_ms: int = Field(50, ge=1, le=5000, description="milliseconds for which a publish waits for the shard")
    publish_deadline_ms: int = Field(250, ge=1, le=5000, description="milliseconds for one call that publishes")
    shard_deadline_s: float = Field(1.0, ge=0.05, le=60, description="seconds for one call to a shard")
    catch_up_quotes_per_s: int = Field(
        100_000, ge=1_000, le=10_000_000, description="maximum quotes per second sent to a shard that catches up"
    )

    # aggregator_service and the readers
    report_deadline_s: float = Field(2.0, ge=0.05, le=60, description="seconds for one report")
    report_kept_s: float = Field(
        1.0, ge=0, le=60, description="seconds for which identical report requests share an answer"
    )
    request_deadline_s: float = Field(5.0, ge=0.1, le=60, description="seconds for any HTTP request")

    # gateway_service
    allowed_origins: Origins = Field(
        "", description="further origins whose pages may read the streams: https://HOST[:PORT],…"
    )
    streams_max: int = Field(2_000, ge=1, le=100_000, description="maximum open streams; each takes a file descriptor")
    streams_per_address_max: int = Field(
        1_000, ge=1, le=100_000, description="maximum open streams of one client address"
    )
    stream_accepts_per_s: float = Field(
        200, ge=1, le=10_000, description="maximum streams opened per second: many reconnect at once"
    )
    stream_coins_max: int = Field(
        100, ge=1, le=1_000, description="maximum coins of a stream; an SSE `id` names them all"
    )
    stream_subscribe_s: float = Field(10, ge=0.1, le=600, description="seconds within which a WebSocket must subscribe")
    stream_messages_per_s: float = Field(10, ge=0.1, le=1_000, description="maximum messages per second of one client")
    stream_message_bytes_max: int = Field(
        16_384, ge=256, le=1_048_576, description="maximum size of a message in bytes; 100 coins need 7,000"
    )
    stream_write_buffer_bytes: int = Field(
        65_536, ge=4_096, le=2**24, description="maximum bytes buffered for one slow client"
    )
    stream_stall_s: float = Field(
        15, ge=0.5, le=600, description="seconds after which a client that reads nothing is closed"
    )
    stream_age_max_s: float = Field(86_400, ge=1, le=31_536_000, description="maximum lifetime of a stream in seconds")
    stream_ring_bytes: int = Field(
        2**25, ge=65_536, le=2**40, description="memory for the newest quotes, for clients that lag"
    )

    # how it talks
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="lowest level that is logged")

    @model_validator(mode="after")
    def _relations(self) -> Self:
        if self.host not in LOOPBACK and not self.allow_public:
            raise ValueError("COTACOES_HOST is not a loopback address: set COTACOES_ALLOW_PUBLIC=1 to allow that")
        if self.speed == math.inf and (not self.replay_paths or self.source_mode == "latest"):
            raise ValueError("COTACOES_SPEED=max needs a replay and COTACOES_SOURCE_MODE=tape")
        if self.replay_times == "original" and (not self.replay_paths or self.source_mode == "latest" or self.loop):
            raise ValueError(
                "COTACOES_REPLAY_TIMES=original needs a replay, COTACOES_SOURCE_MODE=tape, and no COTACOES_LOOP"
            )
        if self.shard1_dsn and self.shard1_dsn == self.shard2_dsn:
            raise ValueError("COTACOES_SHARD1_DSN and COTACOES_SHARD2_DSN name the same database: give each its own")
        if self.age_max_s < self.fresh_s:
            raise ValueError("COTACOES_AGE_MAX_S must not be below COTACOES_FRESH_S")
        return self

    def port(self, name: str) -> int:
        """The TCP port of a service, of Redis or of a shard on this machine."""
        return self.port_base + PORT_OFFSETS[name]

    def url(self, service: str) -> str:
        """The URL of an HTTP service; empty if there is none with this source."""
        given = {
            "gateway_service": self.gateway_url,
            "external_service": self.external_url,
            "feed_service": self.feed_url,
            "quote_service": self.quote_url,
            "aggregator_service": self.aggregator_url,
        }[service]
        if service not in self.http_services:
            return ""
        return given or f"http://127.0.0.1:{self.port(service)}"

    @property
    def hosts(self) -> list[str]:
        """The hosts that a request may name."""
        return [*LOOPBACK, self.host, *filter(None, self.allowed_hosts.split(","))]

    @property
    def redis(self) -> str:
        """The URL of Redis."""
        return self.redis_url or f"redis://127.0.0.1:{self.port('redis')}"

    def dsn(self, shard: str) -> str:
        """The DSN of a shard; SettingError if it is not set."""
        dsn = {"shard1": self.shard1_dsn, "shard2": self.shard2_dsn}[shard]
        if not dsn:
            raise SettingError(f"{PREFIX}{shard.upper()}_DSN is not set: set it to postgresql://USER:PASSWORD@HOST/DB")
        return dsn

    @property
    def origins(self) -> frozenset[str]:
        """The origins of `allowed_origins`."""
        return frozenset(filter(None, self.allowed_origins.split(",")))

    @property
    def further_pairs(self) -> dict[str, tuple[str, str]]:
        """Coin and currency by pair, for the pairs that `replay_pairs` adds."""
        items = (item.rsplit(":", 2) for item in filter(None, self.replay_pairs.split(",")))
        return {pair: (coin, currency) for pair, coin, currency in items}

    @property
    def source_service(self) -> Literal["external_service", "feed_service"]:
        """The service that quote_service takes prices from."""
        return "feed_service" if self.is_live_source else "external_service"

    @property
    def http_services(self) -> list[str]:
        """The services that listen with this source."""
        absent = "external_service" if self.is_live_source else "feed_service"
        if self.source == "venues":  # the one simulates what the other follows
            absent = ""
        return [name for name in HTTP_SERVICES if name != absent]

    @property
    def is_live_source(self) -> bool:
        """Whether prices come from venues, through feed_service; also from recorded frames of venues."""
        return self.source in ("venues", "exchanges") or bool(self.frame_paths)

    @property
    def records_venues(self) -> bool:
        """Whether the prices of single venues are recorded."""
        return self.record_venues and self.is_live_source

    @property
    def frame_paths(self) -> list[Path]:
        """The files or folders of recorded frames; empty for any other source."""
        kind, _, paths = self.source.partition(":")
        names = paths.split(",")
        are_frames = kind == "replay" and all(name.endswith((FRAMES_SUFFIX, "/")) for name in names)
        return [Path(name) for name in names] if are_frames else []

    @property
    def venue_names(self) -> list[str]:
        """The venues whose books make the price."""
        return self.venues.split(",")

    def venue_url(self, venue: str) -> str | None:
        """The address of a venue: that of the settings, or of its simulation; None if it is the venue's own."""
        given = dict(item.split("=", 1) for item in filter(None, self.venue_urls.split(",")))
        if venue in given or self.source != "venues":
            return given.get(venue)
        return f"ws{self.url('external_service').removeprefix('http')}/venues/{venue}/stream"

    @property
    def venue_symbol_overrides(self) -> dict[tuple[str, str], str]:
        """Symbol by venue and coin, as `venue_symbols` has them."""
        items = (item.split(":", 2) for item in filter(None, self.venue_symbols.split(",")))
        return {(venue, coin): symbol for venue, coin, symbol in items}

    @property
    def replay_paths(self) -> list[Path]:
        """The files of a replay of prices; empty for any other source."""
        kind, _, paths = self.source.partition(":")
        return [Path(path) for path in paths.split(",")] if kind == "replay" and not self.frame_paths else []

    @property
    def seed_placement(self) -> dict[str, str]:
        """Shard by coin, in the order of the setting."""
        return {coin: shard for coin, _, shard in (item.partition(":") for item in self.coins.split(","))}
