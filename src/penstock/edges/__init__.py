"""HTTP and HTML, thin and blind to adapters."""
