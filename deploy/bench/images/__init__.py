"""Container images under the reference tags, built here around real servers: README.md says what is
real in them."""
