"""Shipped for users and for us: driver, clock, oracle, conformance suites."""
