"""Who is in the holdout, by hash and for ever."""
