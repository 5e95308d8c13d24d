"""What others do, to stand beside: only what a fair comparison needs."""
