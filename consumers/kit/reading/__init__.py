"""A range of a stream for research: typed deliveries, rows, data frames."""
