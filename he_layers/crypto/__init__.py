"""The cryptosystems: parameters, keys, ciphertexts, noise; the only room that imports TenSEAL and the kernel."""
