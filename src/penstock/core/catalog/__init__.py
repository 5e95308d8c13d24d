"""Declared event types, their privacy annotations, and whether version n+1 may follow n."""
