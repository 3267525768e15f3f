"""Peers: methods of others, on the same data and networks, trained and judged in the same frame.

Papers are cited by key, those not listed here in `iq_offline.algorithms`:
[SEABO24] Lyu et al., SEABO: A Simple Search-Based Method for Offline Imitation Learning, ICLR 2024, arXiv 2402.03807
[OTR23]   Luo et al., Optimal Transport for Offline Imitation Learning, ICLR 2023, arXiv 2303.13971
[ILID24]  Yue et al., How to Leverage Diverse Demonstrations in Offline Imitation Learning, ICML 2024
[UDS22]   Yu et al., How to Leverage Unlabeled Data in Offline Reinforcement Learning, ICML 2022, arXiv 2202.01741
"""
