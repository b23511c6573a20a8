"""The settings that each process receives: those that it reads, and those that validate them.

An attacker who takes over a process learns no secret that it never received. `cotacoes up` and compose.yaml follow this
table; a setting in no row reaches no service.
"""

from __future__ import annotations

_LISTENS = frozenset(
    {
        *("host", "allow_public", "allowed_hosts", "port_base", "admin_token", "request_deadline_s", "coins"),
        *("streams_max", "streams_per_address_max"),  # its connections: streams, and as many again
        "log_level",
    }
)
_DIRECTORY = frozenset({"shard1_dsn", "shard2_dsn", "coins", "data"})
_BUS = frozenset({"redis_url", "channel_prefix", "publish_deadline_ms", "port_base"})
_AGES = frozenset({"fresh_s", "age_max_s"})
_SERIES = frozenset({"record_venues", "venues", "venue_symbols"})
_VENUES = _SERIES | {"source", "venue_urls", "external_url"}
_TAPE = frozenset({"source", "source_mode", "speed", "loop", "replay_times"})  # they judge each other

USES: dict[str, frozenset[str]] = {
    "migrate": _DIRECTORY - {"data"} | _TAPE | _SERIES,
    "external_service": _LISTENS | _TAPE | {"data", "replay_price", "replay_pairs", "seed", "failure_rate", "tick_ms"},
    "feed_service": _LISTENS | _TAPE | _VENUES | {"data"},
    "quote_service": _LISTENS
    | _DIRECTORY
    | _BUS
    | _AGES
    | _TAPE
    | {
        *("external_url", "feed_url", "poll_interval_s", "fetch_deadline_s", "fetch_attempts", "fetch_bytes_max"),
        *("breaker_failures", "breaker_failure_rate", "breaker_open_s", "breaker_open_max_s", "breaker_probes"),
        *("jump_factor_max", "jump_window_s", "jump_confirm_prices", "jump_confirm_s", "accept_clock"),
        *("log_quota_bytes", "log_kept_s", "publish_wait_ms", "shard_deadline_s", "catch_up_quotes_per_s"),
    },
    "aggregator_service": _LISTENS | _DIRECTORY | _AGES | {"quote_url", "report_deadline_s", "report_kept_s"},
    # its breakers can be set by an administrator, hence the token
    "gateway_service": _LISTENS
    | _BUS
    | _AGES
    | {
        *(
            "quote_url",
            "aggregator_url",
            "external_url",
            "feed_url",
            "report_deadline_s",
        ),  # for its state
        *(
            "source",
            "allowed_origins",
            "streams_max",
            "streams_per_address_max",
            "stream_accepts_per_s",
            "stream_coins_max",
        ),
        *("stream_subscribe_s", "stream_messages_per_s", "stream_message_bytes_max", "stream_write_buffer_bytes"),
        *("stream_stall_s", "stream_age_max_s", "stream_ring_bytes"),
    },
    "client_subscriber": _BUS | {"quote_url", "coins", "log_level"},
}
