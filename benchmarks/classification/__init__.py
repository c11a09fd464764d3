"""Transfer to image classification: fine-tuning, linear probe and k-NN on one loader."""
