"""A submission to the ml-inference workload of the FHE benchmarking suite (HomomorphicEncryption.org), and a driver that runs it."""
