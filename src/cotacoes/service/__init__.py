"""What every service has: its process, its routes for operators, its errors and its background work.

    process      settings → log → signals → the service's own main → exit code; the port
    app          FastAPI with /livez /readyz /metrics /docs /openapi.json
    document     what /openapi.json says of each route: its answer and its problems
    problems     every error as problem+json
    requests     what routes ask of a request: the admin token
    coins        the coin that is named, if it is quoted here
    background   tasks beside the requests

A request passes the edge first (`edge.py`), which bounds it and answers the lean routes.
"""
