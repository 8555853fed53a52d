"""What the routes of routes.py do. Each is a function: an admitted request and checked parameters
in, an answer out."""
