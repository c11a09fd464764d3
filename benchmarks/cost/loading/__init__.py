"""Speed of the way from files to batches (`make bench-data`)."""
