"""Where suppressions and withdrawals are kept."""
