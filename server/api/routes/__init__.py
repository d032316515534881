"""One file per resource of the Open Inference Protocol v2 and its extensions. Routes move bytes; they never parse a ciphertext."""
