"""Where events come in over HTTP: Segment's paths, write keys, limits and exact statuses."""
