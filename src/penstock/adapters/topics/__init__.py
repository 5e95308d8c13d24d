"""Topics of other producers: in memory, or on Kafka."""
