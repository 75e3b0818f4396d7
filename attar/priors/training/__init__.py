"""How priors are trained and fine-tuned."""
