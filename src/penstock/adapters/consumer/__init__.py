"""Adapters of the consumer port: members of a group that shares partitions out."""
