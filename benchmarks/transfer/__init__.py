"""What every transfer shares: the backbone and its origin, layer-wise rates, counted batches, exact resume, records."""

RANDOM = "random initialisation"  # the method's name, in records and tables, of a backbone without pretraining
