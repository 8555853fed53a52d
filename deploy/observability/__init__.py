"""Rules and dashboards for Prometheus and Grafana, written from tables: `make observability`."""
