"""The algorithms: losses as pure functions, networks, and thin learners that hold the state.

Papers are cited by key:
[IQ21]   Garg et al., IQ-Learn: Inverse soft-Q Learning for Imitation, NeurIPS 2021, arXiv 2106.12142
[CSIL23] Watson et al., Coherent Soft Imitation Learning, NeurIPS 2023, arXiv 2305.16498
[LSIQ23] Al-Hafez et al., LS-IQ: Implicit Reward Regularization for Inverse RL, ICLR 2023, arXiv 2303.00599
[SAC18]  Haarnoja et al., Soft Actor-Critic, ICML 2018, arXiv 1801.01290
[LN16]   Ba et al., Layer Normalization, arXiv 1607.06450
"""
