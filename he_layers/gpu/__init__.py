"""The evaluation on a device of torch: a GPU, or the CPU for tests. The only room that a server may do without: an extra, `gpu`.

One file for each primitive of he_layers.crypto, on tensors in place of arrays. Torus words are int32, whose arithmetic is modulo 2^32.
"""
