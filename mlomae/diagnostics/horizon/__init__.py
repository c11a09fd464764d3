"""Whether the influence of one step predicts the effect of many real ones (`mlomae horizon`)."""
