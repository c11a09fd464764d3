"""Transfer to image classification: fine-tuning, linear probe and k-NN of any backbone on any labelled data set."""

RANDOM = "random initialisation"  # the method's name, in records and tables, of a backbone without pretraining
