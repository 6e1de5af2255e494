"""`python -m bench.soak_push`: gateways, a log and their clients that are never left alone."""
