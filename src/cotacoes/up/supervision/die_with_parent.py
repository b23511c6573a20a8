"""Start a program that dies with its parent, even by kill -9: run as a script, it becomes that program.

    python -IS die_with_parent.py PARENT_PID SIGNAL PROGRAM [ARGUMENT…]

On Linux the kernel sends SIGNAL to the program when its parent ends. Other systems have no such signal: there the
next start finds and ends what a killed parent left behind. Imports nothing of the package, to start quickly.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def launcher(signal: int) -> list[str]:
    """The words to put before a program so that it gets `signal` when the thread that starts it ends."""
    return [sys.executable, "-IS", __file__, str(os.getpid()), str(int(signal))]


def bind(parent: int, signal: int) -> None:
    """Let this process get `signal` when its parent ends; it exits if that has happened already."""
    if sys.platform == "linux":
        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
        if os.getppid() != parent:  # it ended before we asked for the signal
            sys.exit(1)


def main(parent: int, signal: int, program: list[str]) -> None:
    """Become `program`; does not return."""
    bind(parent, signal)
    try:
        os.execvp(program[0], program)  # noqa: S606  # a list of words, given by our own supervisor
    except OSError as error:
        sys.exit(f"cannot start {program[0]}: {error.strerror}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
