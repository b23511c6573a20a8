"""The root of the error tree, and the errors that the operator can fix."""

from __future__ import annotations

from typing import Self, TypeVar

E = TypeVar("E", bound=Exception)


class CotacoesError(Exception):
    """Any error of this project."""


class SettingError(CotacoesError):
    """A setting, a port or a data folder cannot be used; the message names it, the problem and the fix."""


class OutputError(CotacoesError):
    """Standard output cannot be written, for another reason than that its reader has left."""

    @classmethod
    def of(cls, error: OSError) -> Self:
        """The error with the system's reason."""
        return cls(f"standard output cannot be written ({error.strerror})")


def setting_error_in(several: ExceptionGroup[Exception]) -> SettingError | None:
    """The first SettingError of a group, None if it has none."""
    return error_in(several, (SettingError,))


def error_in(error: Exception, kinds: tuple[type[E], ...]) -> E | None:
    """The error if it is of these kinds, or the first such one of a group; None if there is none."""
    if isinstance(error, kinds):
        return error
    inner = error.exceptions if isinstance(error, ExceptionGroup) else ()
    return next((found for one in inner if (found := error_in(one, kinds)) is not None), None)
