"""Slots, candidates, eligibility, ranking and the explanation of a choice."""
