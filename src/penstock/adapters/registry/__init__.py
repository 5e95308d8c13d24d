"""Where schemas are registered: in memory, or at a registry that speaks the Confluent API."""
