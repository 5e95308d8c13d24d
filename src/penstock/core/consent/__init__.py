"""Purposes, the ledger of consent records, and the rules that permit or refuse."""
