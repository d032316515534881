"""Networks on ciphertexts: Programs, their layers, their simulation in the clear and their encrypted evaluation."""
