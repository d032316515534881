"""Where the work is done: worker processes that know ciphertexts and keys, and nothing of HTTP."""
