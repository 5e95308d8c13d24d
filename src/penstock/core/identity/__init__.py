"""Identifiers, the edges between them, and who is one person."""
