"""Transfer to fine-grained classification: fine-tuning, linear and k-NN protocols on one loader."""
