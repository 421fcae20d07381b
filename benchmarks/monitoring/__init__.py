"""The service as an operator sees it: under load, with Redis, scraped by a real Prometheus."""
