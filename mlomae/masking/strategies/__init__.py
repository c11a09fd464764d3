"""The masking strategies, one file each."""
