"""One suite per port: what any adapter must do."""
