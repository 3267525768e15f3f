"""Offline imitation on D4RL and Minari datasets by IQ-Learn (Garg et al., NeurIPS 2021, arXiv 2106.12142)."""

__version__ = "0.1.0"
