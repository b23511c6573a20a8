"""The error tree: the type says who is to blame and whether trying again helps.

    CotacoesError
    ├── SettingError              the operator's: a setting, a port or a data folder; the message names the fix
    ├── OutputError               standard output cannot be written
    ├── RequestError              the caller's: sending the same request again will not help
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
    ├── UnavailableError          nobody's: try again after `retry_after_s`
    │   ├── NoQuoteError              503, no quote yet, or only old ones
    │   ├── HistoryUnavailableError   503, the log does not cover the request and the shard is unavailable
    │   ├── LogUnavailableError       503, the local log cannot be written
    │   ├── ShardUnavailableError     503
    │   │   └── ShardTimedOutError        no answer by the deadline
    │   ├── BusUnavailableError       503
    │   │   └── BusTimedOutError          no answer by the deadline
    │   ├── ServiceUnavailableError   503, an upstream is unreachable
    │   │   └── TimedOutError             or did not answer in time
    │   ├── OverloadedError           503
    │   └── DeadlineExceededError     504
    ├── InternalError             500, a bug in the service
    ├── HttpError                 a call over HTTP brought no answer; the caller says what that means
    │   ├── HttpUnavailableError      no connection, past the deadline, or cut
    │   └── HttpMalformedError        an answer that is too large or encoded
    ├── StreamError               a WebSocket has ended; its reader decides whether to connect again
    │   ├── StreamUnavailableError    no connection, cut, or silent
    │   ├── StreamRefusedError        the handshake was answered with another status
    │   ├── StreamClosedError         the other side closed it and gave a reason
    │   └── StreamMalformedError      not the expected stream, or a gap that was not announced
    ├── StaleQuote                the newest quote is older than the caller allows
    ├── SourceError               the external source's: a fetch brought nothing
    │   ├── SourceUnavailableError    no answer, or one that says to try later
    │   ├── SourceMalformedError      an answer that is not a quote
    │   └── SourceGoneError           its tape does not reach back to our cursor
    ├── CopyError                 a shard's copy of a coin, during a move or left behind by one
    │   ├── CopyRefusedError          it is not in the state that this step needs
    │   └── CopyDiffersError          it differs from the other copy
    └── ShardRefusedError         the coin's fence refused a batch
        ├── CoinMovedError            go to the shard that it names, or read the directory again
        ├── WriterSupersededError     a newer writer took over: stop
        ├── FenceClosedError          keep the batch in the log and try again
        └── ShardRewoundError         the shard was restored from a backup: ask for its position

`/docs` shows the docstring of each error that reaches a caller.
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
