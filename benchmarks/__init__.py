"""What Penstock costs, measured on one pinned workload beside its peers: `make bench`."""
