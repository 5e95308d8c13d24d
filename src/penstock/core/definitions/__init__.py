"""A project's definitions as they change: the versions that stand side by side, and what differs."""
