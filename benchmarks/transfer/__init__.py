"""Code that several tasks share: steps of dense transfers, files of predictions, pictures of test images."""
