"""The settings of every process, each with its default, unit and range."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from cotacoes.config.formats import Coins, Dsn, Hosts, HttpUrl, Origins, Pairs, RedisUrl, Source, Speed, Token
from cotacoes.errors import SettingError
from cotacoes.model.live_message import CHANNEL_PREFIX

PREFIX = "COTACOES_"

LOOPBACK = ("127.0.0.1", "::1", "localhost")

PORT_OFFSETS = {
    "gateway_service": 0,
    "external_service": 1,
    "quote_service": 2,
    "aggregator_service": 3,
    "redis": 10,
    "shard1": 11,
    "shard2": 12,
}


class Settings(BaseModel):
    """All settings. Durations end in their unit; an empty URL means the default next to `port_base`."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    # where things are
    host: str = Field("127.0.0.1", description="the address the HTTP services listen on")
    allow_public: bool = Field(False, description="needed to listen beyond loopback")
    allowed_hosts: Hosts = Field(
        "", description="further names by which clients reach the services: HOST,…, beside loopback and `host`"
    )
    port_base: int = Field(8000, ge=1024, le=65000, description="the gateway's port; the others follow from it")
    data: Path = Field(Path(".cotacoes"), description="the folder that holds the log, and everything of `up`")
    redis_url: RedisUrl = Field("", description="Redis or Valkey")
    channel_prefix: str = Field(
        CHANNEL_PREFIX,
        pattern=r"^[A-Za-z0-9._-]{1,32}(:[A-Za-z0-9._-]{1,32}){0,3}$",
        description="of the channels PREFIX:COIN; each system on a Redis needs its own, whatever the database",
    )
    shard1_dsn: Dsn = Field("", description="PostgreSQL of shard1")
    shard2_dsn: Dsn = Field("", description="PostgreSQL of shard2")
    gateway_url: HttpUrl = Field("", description="gateway_service")
    external_url: HttpUrl = Field("", description="external_service, or any source with the same `/quote`")
    quote_url: HttpUrl = Field("", description="quote_service")
    aggregator_url: HttpUrl = Field("", description="aggregator_service")
    admin_token: Token = Field(SecretStr(""), description="bearer token of administrative routes; empty: closed")
    coins: Coins = Field("bitcoin:shard1,ethereum:shard2", description="the seed of the directory")

    # external_service
    source: Source = Field("sim", description="sim, or replay:PATH[,PATH…]")
    speed: Speed = Field(
        1.0,
        description="how much faster than the clock the source runs, 0.01 to 1000; max: a tape as fast as it is taken",
    )
    loop: bool = Field(False, description="begin a replay anew at its end")
    replay_price: Literal["mid", "trade"] = Field("mid", description="of a recording that has both")
    replay_times: Literal["shifted", "original"] = Field("shifted", description="moved to now, or as recorded")
    replay_pairs: Pairs = Field(
        "", description="what further pairs are: PAIR:COIN:CURRENCY,… as in SOLUSDT:solana:USDT"
    )
    seed: int = Field(1, ge=0, le=2**63 - 1, description="of the simulated market and its faults")
    failure_rate: float = Field(0.2, ge=0, le=1, description="share of requests answered with 500 or 503")
    tick_ms: int = Field(250, ge=1, le=60_000, description="between two prices of the simulated market")

    # quote_service
    source_mode: Literal["latest", "tape"] = Field(
        "latest", description="latest: poll the newest prices; tape: take every price"
    )
    poll_interval_s: float = Field(1.0, ge=0.005, le=60, description="between two polls of the source")
    fetch_deadline_s: float = Field(0.8, ge=0.01, le=30, description="of one fetch, from connect to last byte")
    fetch_attempts: int = Field(2, ge=1, le=5, description="most calls in one poll, the first included")
    fetch_bytes_max: int = Field(1_048_576, ge=1024, le=10_000_000, description="most bytes of one answer")
    breaker_failures: int = Field(5, ge=1, le=1000, description="failures in a row that open the circuit")
    breaker_failure_rate: float = Field(0.5, gt=0, le=1, description="share of failures in 100 calls that opens it too")
    breaker_open_s: float = Field(3.0, ge=0.05, le=600, description="how long the circuit stays open")
    breaker_open_max_s: float = Field(
        10.0, ge=0.05, le=3600, description="what that doubles up to while probes fail, where it is more"
    )
    breaker_probes: int = Field(2, ge=1, le=100, description="probes that a half-open circuit lets through")
    fresh_s: float = Field(5.0, gt=0, le=3600, description="age up to which a quote is fresh")
    age_max_s: float = Field(300.0, gt=0, le=86_400, description="age beyond which there is no current quote")
    jump_factor_max: float = Field(10.0, gt=1, le=1e6, description="a larger step within `jump_window_s` is absurd")
    jump_window_s: float = Field(300.0, gt=0, le=86_400, description="how long an accepted price judges the next")
    jump_confirm_prices: int = Field(10, ge=1, le=10_000, description="prices in a row that confirm such a step")
    jump_confirm_s: float = Field(30.0, ge=0, le=86_400, description="time that these prices must span")
    accept_clock: bool = Field(False, description="start even if stored times lie over a day ahead of the clock")
    log_quota_bytes: int = Field(1_073_741_824, ge=1_048_576, le=2**50, description="of the local log")
    log_kept_s: float = Field(
        3600.0, ge=0, le=604_800, description="delivered quotes stay in the log so long, up to half of its quota"
    )
    publish_wait_ms: int = Field(50, ge=1, le=5000, description="a publish waits this long for the shard")
    publish_deadline_ms: int = Field(250, ge=1, le=5000, description="of one publish")
    shard_deadline_s: float = Field(1.0, ge=0.05, le=60, description="of one call to a shard")
    catch_up_quotes_per_s: int = Field(
        100_000, ge=1_000, le=10_000_000, description="most quotes a second that one shard is sent while it catches up"
    )

    # aggregator_service and the readers
    report_deadline_s: float = Field(2.0, ge=0.05, le=60, description="of one report")
    report_kept_s: float = Field(1.0, ge=0, le=60, description="who asks the same within it is told the same again")
    request_deadline_s: float = Field(5.0, ge=0.1, le=60, description="of any HTTP request")

    # gateway_service
    allowed_origins: Origins = Field(
        "", description="whose pages may read the streams beside our own: https://HOST[:PORT],…"
    )
    streams_max: int = Field(2_000, ge=1, le=100_000, description="streams at once; each takes a file descriptor")
    streams_per_address_max: int = Field(1_000, ge=1, le=100_000, description="streams at once of one client address")
    stream_accepts_per_s: float = Field(200, ge=1, le=10_000, description="streams let in a second: many come at once")
    stream_coins_max: int = Field(100, ge=1, le=1_000, description="coins of one stream; an SSE `id` names them all")
    stream_subscribe_s: float = Field(10, ge=0.1, le=600, description="by when a WebSocket has to subscribe")
    stream_messages_per_s: float = Field(10, ge=0.1, le=1_000, description="messages that one client may send")
    stream_message_bytes_max: int = Field(16_384, ge=256, le=1_048_576, description="of one; 100 coins have 7,000")
    stream_write_buffer_bytes: int = Field(65_536, ge=4_096, le=2**24, description="held here for one slow client")
    stream_stall_s: float = Field(15, ge=0.5, le=600, description="who does not read for so long is closed")
    stream_age_max_s: float = Field(86_400, ge=1, le=31_536_000, description="the longest life of a stream")
    stream_ring_bytes: int = Field(2**25, ge=65_536, le=2**40, description="newest quotes, kept for who is behind")

    # how it talks
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="of the structured log")

    @model_validator(mode="after")
    def _relations(self) -> Self:
        if self.host not in LOOPBACK and not self.allow_public:
            raise ValueError("COTACOES_HOST is beyond loopback: set COTACOES_ALLOW_PUBLIC=1 if that is meant")
        if self.speed == math.inf and (self.source == "sim" or self.source_mode == "latest"):
            raise ValueError("COTACOES_SPEED=max needs a replay and COTACOES_SOURCE_MODE=tape")
        if self.replay_times == "original" and (self.source == "sim" or self.source_mode == "latest" or self.loop):
            raise ValueError(
                "COTACOES_REPLAY_TIMES=original needs a replay, COTACOES_SOURCE_MODE=tape, and no COTACOES_LOOP"
            )
        if self.shard1_dsn and self.shard1_dsn == self.shard2_dsn:
            raise ValueError("COTACOES_SHARD1_DSN and COTACOES_SHARD2_DSN name the same database: give each its own")
        if self.age_max_s < self.fresh_s:
            raise ValueError("COTACOES_AGE_MAX_S must not be below COTACOES_FRESH_S")
        return self

    def port(self, part: str) -> int:
        """The TCP port of a part on this machine."""
        return self.port_base + PORT_OFFSETS[part]

    def url(self, part: str) -> str:
        """Where an HTTP service is reached."""
        given = {
            "gateway_service": self.gateway_url,
            "external_service": self.external_url,
            "quote_service": self.quote_url,
            "aggregator_service": self.aggregator_url,
        }[part]
        return given or f"http://127.0.0.1:{self.port(part)}"

    @property
    def hosts(self) -> list[str]:
        """Every host that a request may name."""
        return [*LOOPBACK, self.host, *filter(None, self.allowed_hosts.split(","))]

    @property
    def redis(self) -> str:
        """Where Redis is reached."""
        return self.redis_url or f"redis://127.0.0.1:{self.port('redis')}"

    def dsn(self, shard: str) -> str:
        """The DSN of a shard; SettingError where there is none."""
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
        """Pair to coin and currency, of those that `replay_pairs` adds."""
        items = (item.rsplit(":", 2) for item in filter(None, self.replay_pairs.split(",")))
        return {pair: (coin, currency) for pair, coin, currency in items}

    @property
    def replay_paths(self) -> list[Path]:
        """The files of a replay; none where the source is another."""
        if self.source == "sim":
            return []
        return [Path(path) for path in self.source.removeprefix("replay:").split(",")]

    @property
    def seed_placement(self) -> dict[str, str]:
        """Coin to shard, in the order of the setting."""
        return {coin: shard for coin, _, shard in (item.partition(":") for item in self.coins.split(","))}
