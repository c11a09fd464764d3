"""The data sets known by name, one file each; `mlomae.data` imports them all, which registers them."""
