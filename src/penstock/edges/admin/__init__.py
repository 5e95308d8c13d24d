"""The HTTP edge of the operator's own tools: load, send, explain, dead letters, status."""
