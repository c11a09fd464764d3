"""How many operations a pretraining takes, counted from its configuration."""
