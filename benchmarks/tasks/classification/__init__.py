"""Transfer to image classification: fine-tuning, linear probe and k-NN of any backbone on any labelled data set."""
