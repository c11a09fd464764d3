"""The embedded images, drawn from keys, and the same as files of a real data set."""
