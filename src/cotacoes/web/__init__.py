"""What every service has: its process, its routes for operators, its errors, its upstreams and its background work.

process           settings → log → signals → the service's own main → exit code; the port
app               FastAPI with /livez /readyz /metrics /docs /openapi.json
request_limits    the bounds of every request, before FastAPI sees it; the lean routes
request_spans     the span of every request
document          what /openapi.json says of each route: its answer and its problems
pages             the frame of HTML pages
docs_page         /docs, offline
problems          every error as problem+json
requests          what routes ask of a request: the admin token
upstreams         what a service calls: a policy and a breaker each, counted and remembered
service_client    the routes of all services, as methods
overview          what quote_service knows about many coins, checked
resilient_client  quote_service as an upstream
breaker_routes    the breakers, for operators
background        tasks beside the requests
restarts          background tasks that begin again after they failed
"""
