"""Pages in a real browser; run by `make test-browser`, outside the default suite."""
