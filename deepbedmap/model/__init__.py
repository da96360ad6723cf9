"""The super-resolution network: layers, losses, training, prediction and scores."""
