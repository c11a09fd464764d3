"""What a mask has learned: pictures of masks, the influence of patches, and whether one step predicts many."""
