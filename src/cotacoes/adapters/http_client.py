"""The HTTP client: each call has one deadline and one bounded body.

It decides for all callers:

* The deadline covers the whole call, from the wait for a connection to the last byte of the body.
* A body is counted while it streams, and refused at the first byte too many. It is requested unencoded, and an encoded
  one is refused unread, so nothing is ever inflated.
* A redirect is a status like any other: no answer sends this process to an address that is not configured.
* No cookie is stored, and no proxy or password is read from the environment.
* The upstream learns how much time is left (`X-Deadline-Ms`), and to which trace the call belongs (`traceparent`).
* The bytes of an answer on the wire are bounded too, and a connection that brought more than its answer is closed.
* A call that ends early, for whatever reason, closes its connection and returns its place in the pool.

It does not know what an answer means: every status is returned, and each caller translates `HttpError` once.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpcore2
import httpx2

from cotacoes.adapters.http_wire import CountedNetwork
from cotacoes.errors import HttpError, HttpMalformedError, HttpUnavailableError
from cotacoes.observability import tracing
from cotacoes.patterns.resilience.classification import Outcome
from cotacoes.patterns.resilience.deadline import HEADER as DEADLINE_HEADER
from cotacoes.patterns.resilience.deadline import current_deadline, header_of

CONNECTIONS_MAX = 32  # one client calls few hosts; further calls wait for a connection within their deadline
KEEP_ALIVE_S = 5.0  # below the servers' 15 s, so that few idle connections are closed under a new request
WIRE_BYTES_A_BYTE = 8  # of a body: in chunks of one byte, each byte takes six
HEAD_BYTES_MAX = 131_072
_HEADERS = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "cotacoes"}


@dataclass(frozen=True, slots=True)
class Response:
    """A complete answer. Header names are lower-case; values of a repeated header are joined by `, `."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClient:
    """An async context manager around a bounded pool of connections.

    `deadline_s` applies to each whole call, in seconds, and `bytes_max` to each body. A test may pass its own network
    as `transport`. Without `has_tls`, for addresses of which none is https, no certificates are loaded.
    """

    def __init__(
        self,
        deadline_s: float,
        bytes_max: int,
        *,
        has_tls: bool = True,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._deadline_s = deadline_s
        self._bytes_max = bytes_max
        self._has_tls = has_tls
        self._given = transport
        self._transport: httpx2.AsyncBaseTransport | None = None

    async def __aenter__(self) -> Self:
        limits = httpx2.Limits(
            max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX, keepalive_expiry=KEEP_ALIVE_S
        )
        wire_bytes_max = WIRE_BYTES_A_BYTE * self._bytes_max + HEAD_BYTES_MAX
        self._transport = self._given or _Transport(limits, wire_bytes_max, has_tls=self._has_tls)
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        transport, self._transport = self._transport, None
        assert transport is not None
        await transport.__aexit__(kind, error, trace)

    async def get(
        self, url: str, headers: Mapping[str, str] | None = None, *, deadline_s: float | None = None
    ) -> Response:
        """GET `url`. A `deadline_s` replaces that of the client.

        Raises HttpUnavailableError and HttpMalformedError.
        """
        return await self._call("GET", url, headers or {}, None, deadline_s)

    async def put(
        self, url: str, body: bytes, headers: Mapping[str, str] | None = None, *, deadline_s: float | None = None
    ) -> Response:
        """PUT a JSON `body` to `url`; otherwise like `get`."""
        return await self._call("PUT", url, {"content-type": "application/json", **(headers or {})}, body, deadline_s)

    async def _call(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, deadline_s: float | None
    ) -> Response:
        deadline_s = self._deadline_s if deadline_s is None else deadline_s
        outer = current_deadline()
        left_s = deadline_s if outer is None else min(deadline_s, outer.remaining())
        sent = {**_HEADERS, DEADLINE_HEADER: header_of(left_s), **headers}
        with tracing.call_span(method, url) as span:
            answer = await self._in_time(
                deadline_s, lambda: httpx2.Request(method, url, headers={**span.headers, **sent}, content=body)
            )
            span.note({"http.response.status_code": answer.status})
            if answer.status >= 400:
                span.fail(str(answer.status))
        return answer

    async def _in_time(self, deadline_s: float, make_request: Callable[[], httpx2.Request]) -> Response:
        try:
            async with asyncio.timeout(deadline_s):  # the outer deadline is enforced where it was set
                return await self._exchange(make_request())
        except TimeoutError as error:
            raise HttpUnavailableError(
                f"no complete answer within {deadline_s:g} s", outcome=Outcome.TIMED_OUT
            ) from error
        except (httpx2.HTTPError, OSError) as error:
            outcome = Outcome.UNREACHABLE if isinstance(error, httpx2.ConnectError) else Outcome.CUT
            raise HttpUnavailableError(_in_words(error), outcome=outcome) from error
        except httpx2.InvalidURL as error:
            raise HttpUnavailableError(f"invalid address: {error}") from error
        except UnicodeError as error:
            raise HttpUnavailableError(f"the address or a header cannot be encoded: {error}") from error
        except (HttpError, AssertionError, TypeError):
            raise  # our own: a refused answer, or a wrong call
        except Exception as error:
            raise HttpUnavailableError(f"the call failed ({type(error).__name__})", outcome=Outcome.CUT) from error

    async def _exchange(self, request: httpx2.Request) -> Response:
        assert self._transport is not None, "the client is open only inside its context"
        answer = await self._transport.handle_async_request(request)
        try:
            self._refuse_unreadable(answer.headers)
            body = bytearray()
            assert isinstance(answer.stream, httpx2.AsyncByteStream)
            async for chunk in answer.stream:
                body += chunk
                if len(body) > self._bytes_max:
                    raise HttpMalformedError(
                        f"the answer has more than {self._bytes_max} bytes", outcome=Outcome.OVERSIZED
                    )
        finally:
            await answer.aclose()  # a body not read to its end closes the connection
        return Response(answer.status_code, dict(answer.headers.items()), bytes(body))

    def _refuse_unreadable(self, headers: httpx2.Headers) -> None:
        encoding = headers.get("content-encoding", "").strip().lower()
        if encoding not in {"", "identity"}:
            raise HttpMalformedError(
                f"the answer is encoded ({encoding[:40]!r}) although identity was asked for", outcome=Outcome.ENCODED
            )
        announced = headers.get("content-length", "")
        if announced.isascii() and announced.isdigit() and len(announced) < 20 and int(announced) > self._bytes_max:
            raise HttpMalformedError(
                f"the answer announces {announced} bytes, more than {self._bytes_max}", outcome=Outcome.OVERSIZED
            )


class _Transport(httpx2.AsyncHTTPTransport):
    """httpx2's transport over a network that counts; httpx2 takes no network as an argument."""

    def __init__(self, limits: httpx2.Limits, wire_bytes_max: int, *, has_tls: bool) -> None:
        # the other context trusts no certificate: a call of https would fail
        tls = httpx2.create_ssl_context(trust_env=False) if has_tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        super().__init__(verify=tls, trust_env=False, limits=limits)
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=CountedNetwork(wire_bytes_max),
        )


def _in_words(error: Exception) -> str:
    """One line for a log, since httpx2 leaves the text of some errors empty."""
    kinds = {
        httpx2.ConnectError: "no connection",
        httpx2.ReadError: "the connection was cut",
        httpx2.WriteError: "the connection was cut",
        httpx2.RemoteProtocolError: "the answer broke off or is not HTTP",
        httpx2.UnsupportedProtocol: "invalid address",
    }
    problem = next((text for kind, text in kinds.items() if isinstance(error, kind)), type(error).__name__)
    return f"{problem}: {error}" if str(error) else problem
