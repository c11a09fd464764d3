"""`mlomae data check` and `mlomae data prepare`."""
