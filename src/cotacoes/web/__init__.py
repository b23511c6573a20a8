"""The parts that all services share: process, routes for operators, errors, upstreams and background work.

process           settings → log → tracing → signals → the service's own main → exit code; the port
app               FastAPI with /livez /readyz /metrics /docs /openapi.json
request_limits    the bounds of every request, before FastAPI sees it; the lean routes
request_spans     the span of every request
document          /openapi.json: the answer and the problems of each route
pages             the frame of HTML pages
docs_page         /docs, offline
problems          every error as problem+json
requests          the check of the admin token
upstreams         what a service calls, each with a policy and a breaker
service_client    the routes of all services, as methods
overview          what quote_service knows about many coins, checked
resilient_client  quote_service as an upstream
breaker_routes    the routes that show and set breakers
background        tasks beside the requests, restarted after a failure
"""
