"""What a mask has learned: pictures of masks, influence of patches, and whether one step predicts many."""
