"""Does the influence of one step predict the effect of many real ones (`mlomae horizon`)."""
