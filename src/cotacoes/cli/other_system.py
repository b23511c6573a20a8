"""Find the system that listens on a port, for a person who works in another folder."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

DATA_VARIABLE = "COTACOES_DATA"  # which `up` gives to each of its services


def data_folder_on(port: int) -> Path | None:
    """The data folder of the system whose service listens on the port; None if it is not known.

    The folder is in the environment of the process that listens, which only its own user can read.
    """
    with contextlib.suppress(psutil.Error):
        for one in psutil.net_connections(kind="tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port and one.pid is not None:
                folder = psutil.Process(one.pid).environ().get(DATA_VARIABLE)
                return None if folder is None else Path(folder)
    return None
