"""The health check of a container: ends with 0 if the service on the given port answers `/livez` with 200.

It uses only the standard library, since it runs every few seconds and the image has no curl. It does not use urllib,
which would go through a proxy that the environment names.
"""

import http.client
import sys

DEADLINE_S = 2.0


def main(port: int) -> int:
    """The exit code of a health check: 0 if the service is alive, else 1."""
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
