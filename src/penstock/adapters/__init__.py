"""One file per product; the only place a client library is imported."""
