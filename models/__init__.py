"""Training tools: torch networks with power-of-two weights, trained under the circuit's noise and exported to Programs."""
