"""The model protocol, the training loop and the built-in models."""
