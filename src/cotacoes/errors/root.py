"""The root of the tree, and what is the operator's to mend."""

from __future__ import annotations

from typing import Self


class CotacoesError(Exception):
    """Any error of this project."""


class SettingError(CotacoesError):
    """A setting, a port or a data folder is not usable; the message names the thing, the problem and the fix."""


class OutputError(CotacoesError):
    """Standard output takes nothing more, for another reason than that its reader has left."""

    @classmethod
    def of(cls, error: OSError) -> Self:
        """The error that says why."""
        return cls(f"standard output cannot be written ({error.strerror})")


def setting_error_in(several: ExceptionGroup[Exception]) -> SettingError | None:
    """The first SettingError of a group; None where there is none."""
    for error in several.exceptions:
        found = setting_error_in(error) if isinstance(error, ExceptionGroup) else error
        if isinstance(found, SettingError):
            return found
    return None
