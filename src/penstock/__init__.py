"""Penstock: real-time personalization for email campaigns.

What a project's files import is in `penstock.dsl`; what its tests use is in `penstock.testing`.
"""

__version__ = "0.1.0"
