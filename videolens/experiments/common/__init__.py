"""What experiments have in common: asking question after question, results, statistics, provenance."""
