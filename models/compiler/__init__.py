"""From an nn.Module to a Program: trace, simplify, convert, export."""
