"""The error tree: who is to blame and whether trying again helps is in the type.

    CotacoesError
    ├── SettingError              the operator's: a setting, a port, a data folder; the message names the fix
    ├── OutputError               standard output cannot be written
    ├── RequestError              the caller's: sending the same again will not help
    │   ├── UnknownCoinError          404
    │   ├── NotFoundError             404
    │   ├── BadRequestError           422
    │   ├── MalformedRequestError     400
    │   ├── MethodNotAllowedError     405
    │   ├── RequestTimeoutError       408
    │   ├── TooLargeError             413
    │   ├── MisdirectedRequestError   421
    │   ├── HeadersTooLargeError      431
    │   ├── UnauthorizedError         401
    │   ├── ForbiddenError            403
    │   ├── PositionBeyondEndError    409
    │   ├── PositionGoneError         410
    │   └── CursorGoneError           410
    ├── UnavailableError          nobody's for now: try again after `retry_after_s`
    │   ├── NoQuoteError              503, no quote yet, or none young enough
    │   ├── HistoryUnavailableError   503, the log does not cover the question and the shard is away
    │   ├── LogUnavailableError       503, the local log cannot be written
    │   ├── ShardUnavailableError     503
    │   │   └── ShardTimedOutError        not by the deadline
    │   ├── BusUnavailableError       503
    │   │   └── BusTimedOutError          not by the deadline
    │   ├── ServiceUnavailableError   503, a service that is asked is away
    │   │   └── TimedOutError             or too slow
    │   ├── OverloadedError           503
    │   └── DeadlineExceededError     504
    ├── InternalError             ours: a bug; 500
    ├── HttpError                 one call over HTTP brought no answer; whoever called says what that means
    │   ├── HttpUnavailableError      no connection, past the deadline, or cut
    │   └── HttpMalformedError        an answer too large or encoded
    ├── StreamError               a WebSocket brings nothing more; who follows it connects again, or does not
    │   ├── StreamUnavailableError    no connection, cut, or silent
    │   ├── StreamRefusedError        the handshake was answered with another status
    │   ├── StreamClosedError         the other side closed it, and said why
    │   └── StreamMalformedError      what came is not the stream, or shows a hole that was not told
    ├── StaleQuote                the caller's own limit: the newest quote is older
    ├── SourceError               the outside world's: one fetch brought nothing
    │   ├── SourceUnavailableError    no answer, or one that says try later
    │   ├── SourceMalformedError      an answer that is not a quote
    │   └── SourceGoneError           its tape does not reach back to where we are
    ├── CopyError                 a copy of a coin, in a move or left behind by one
    │   ├── CopyRefusedError          it is not as this step needs it
    │   └── CopyDiffersError          it is not what the other copy is
    └── ShardRefusedError         the fence's last word
        ├── CoinMovedError            go where it says, or read the directory again
        ├── WriterSupersededError     another writer took over: stop
        ├── FenceClosedError          wait in the log
        └── ShardRewoundError         it is not where we left it: ask where it is

The docstring of an error that reaches a caller is what `/docs` says about its problem type.
"""

from cotacoes.errors.failures import (
    CoinMovedError,
    CopyDiffersError,
    CopyError,
    CopyRefusedError,
    FenceClosedError,
    HttpError,
    HttpMalformedError,
    HttpUnavailableError,
    ShardRefusedError,
    ShardRewoundError,
    SourceError,
    SourceGoneError,
    SourceMalformedError,
    SourceUnavailableError,
    StaleQuote,
    StreamClosedError,
    StreamError,
    StreamMalformedError,
    StreamRefusedError,
    StreamUnavailableError,
    WriterSupersededError,
)
from cotacoes.errors.problems import (
    BadRequestError,
    BusTimedOutError,
    BusUnavailableError,
    CursorGoneError,
    DeadlineExceededError,
    ForbiddenError,
    HeadersTooLargeError,
    HistoryUnavailableError,
    InternalError,
    LogUnavailableError,
    MalformedRequestError,
    MethodNotAllowedError,
    MisdirectedRequestError,
    NoQuoteError,
    NotFoundError,
    OverloadedError,
    PositionBeyondEndError,
    PositionGoneError,
    ProblemError,
    RequestError,
    RequestTimeoutError,
    ServiceUnavailableError,
    ShardTimedOutError,
    ShardUnavailableError,
    TimedOutError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
    UnknownCoinError,
    problem_types,
)
from cotacoes.errors.root import (
    CotacoesError,
    OutputError,
    SettingError,
    error_in,
    setting_error_in,
)

__all__ = [
    "BadRequestError",
    "BusTimedOutError",
    "BusUnavailableError",
    "CoinMovedError",
    "CopyDiffersError",
    "CopyError",
    "CopyRefusedError",
    "CotacoesError",
    "CursorGoneError",
    "DeadlineExceededError",
    "FenceClosedError",
    "ForbiddenError",
    "HeadersTooLargeError",
    "HistoryUnavailableError",
    "HttpError",
    "HttpMalformedError",
    "HttpUnavailableError",
    "InternalError",
    "LogUnavailableError",
    "MalformedRequestError",
    "MethodNotAllowedError",
    "MisdirectedRequestError",
    "NoQuoteError",
    "NotFoundError",
    "OutputError",
    "OverloadedError",
    "PositionBeyondEndError",
    "PositionGoneError",
    "ProblemError",
    "RequestError",
    "RequestTimeoutError",
    "ServiceUnavailableError",
    "SettingError",
    "ShardRefusedError",
    "ShardRewoundError",
    "ShardTimedOutError",
    "ShardUnavailableError",
    "SourceError",
    "SourceGoneError",
    "SourceMalformedError",
    "SourceUnavailableError",
    "StaleQuote",
    "StreamClosedError",
    "StreamError",
    "StreamMalformedError",
    "StreamRefusedError",
    "StreamUnavailableError",
    "TimedOutError",
    "TooLargeError",
    "UnauthorizedError",
    "UnavailableError",
    "UnknownCoinError",
    "WriterSupersededError",
    "error_in",
    "problem_types",
    "setting_error_in",
]
