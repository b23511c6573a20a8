"""Whose system answers on a port, for a person who stands in the folder of another one."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

DATA_VARIABLE = "COTACOES_DATA"  # which `up` gives to each of its services


def data_folder_on(port: int) -> Path | None:
    """The data folder of the system whose service listens on the port; None if there is none, or it cannot be known.

    The system tells which process listens, and the process's environment its folder, of our own processes only.
    """
    with contextlib.suppress(psutil.Error):
        for one in psutil.net_connections(kind="tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port and one.pid is not None:
                folder = psutil.Process(one.pid).environ().get(DATA_VARIABLE)
                return None if folder is None else Path(folder)
    return None
