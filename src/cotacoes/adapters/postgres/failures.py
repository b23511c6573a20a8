"""The errors of PostgreSQL in words of ours, which never carry the DSN or the server's own text."""

from __future__ import annotations

import os
import socket
import ssl
import urllib.parse

from cotacoes.errors import (
    CoinMovedError,
    CotacoesError,
    FenceClosedError,
    SettingError,
    ShardRewoundError,
    ShardTimedOutError,
    ShardUnavailableError,
    WriterSupersededError,
)

POOLER = (
    "is behind a pooler that does not keep sessions: its DSN must lead to PostgreSQL itself, or to a pool with "
    "pool_mode = session"
)
REASONS = {  # by SQLSTATE
    "08P01": "is behind a pooler that refused the connection: docs/explanation/scale.md says how to set up a pool",
    "25006": "takes no writes: it is a standby, or set to read-only",
    "26000": POOLER,
    "28000": "does not accept the user of its DSN",
    "28P01": "does not accept the password of its DSN",
    "3D000": "has no database with the name in its DSN",
    "40001": "is a standby that cancelled the statement to continue its recovery",
    "42P05": POOLER,
    "53100": "has a full disk",
    "53300": "has no connection left: raise max_connections",
    "57P01": "is shutting down",
    "57P02": "has crashed and is starting again",
    "57P03": "is starting up or shutting down",
}


class MissingTableError(ShardUnavailableError):
    """A table is missing: the database is not a shard yet, or belongs to another release."""


def said_by_server(shard: str, sqlstate: str, message: str = "", detail: str | None = None) -> CotacoesError:
    """The error of ours for an error that the server sent."""
    match sqlstate:
        case "CT001":
            to, placement = detail.split(" ") if detail else (None, None)
            return CoinMovedError(f"{shard}: {message}", to=to, placement=None if placement is None else int(placement))
        case "CT002":
            return WriterSupersededError(f"{shard}: {message}")
        case "CT003":
            return FenceClosedError(f"{shard}: {message}")
        case "CT004":
            return ShardRewoundError(f"{shard}: {message}")
        case "42P01":
            return MissingTableError(f"{shard} failed (42P01)")
        case "57014":  # statement_timeout, which is our deadline
            return ShardTimedOutError(f"{shard} did not finish a statement in time (57014)")
        case _:
            return ShardUnavailableError(f"{shard} {REASONS.get(sqlstate, 'failed')} ({sqlstate})")


def unreachable(shard: str, error: OSError) -> ShardUnavailableError:
    """The error of ours for a failure of the network, without the system's text, which names the address."""
    if isinstance(error, ssl.SSLError):
        why = f"TLS failed: {error.reason}"
    elif isinstance(error, socket.gaierror):
        why = "no such host"
    elif error.errno:
        why = os.strerror(error.errno).lower()
    else:  # raised by asyncio if several addresses failed in different ways, by asyncpg if TLS was refused
        why = "the handshake failed" if type(error) is ConnectionError else "no connection"
    return ShardUnavailableError(f"{shard} is not reachable ({why})")


def unusable_dsn(shard: str, dsn: str, *, is_setting: bool) -> CotacoesError:
    """The error for a DSN that the library does not understand, without its text, which may quote the password.

    ShardUnavailableError if the DSN is in the directory and not a setting: one shard's address must not end a service.
    """
    if not is_setting:
        return ShardUnavailableError(f"the DSN of {shard} is not usable here: correct it with `cotacoes shards add`")
    options = ", ".join(name for name, _ in urllib.parse.parse_qsl(dsn.partition("?")[2]))
    return SettingError(
        f"the DSN of {shard} is not usable: write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, "
        "with / ? # @ : in a password as %2F %3F %23 %40 %3A"
        + (f", and check its options and their files ({options})" if options else "")
    )
