"""The embedded images, drawn from random keys, and the same written to files in the layouts of real data sets."""
