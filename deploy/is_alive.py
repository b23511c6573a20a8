"""The health check of a container: whether the service on this port of it says that it lives.

Beside the package and with nothing but the standard library, since it is run every few seconds; there is no curl in the
image. Not urllib, which would ask a proxy that the environment names.
"""

import http.client
import sys

DEADLINE_S = 2.0


def main(port: int) -> int:
    """0 where it lives, else 1: the exit codes that health checks know."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    try:
        connection.request("GET", "/livez")
        return int(connection.getresponse().status != http.HTTPStatus.OK)
    except (OSError, http.client.HTTPException):
        return 1
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
