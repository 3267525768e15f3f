"""Exact truth: small decision processes on which the method's claims are checked without sampling or networks.

[IQ21]   Garg, Chakraborty, Cundy, Song, Ermon: IQ-Learn, NeurIPS 2021, arXiv 2106.12142
[CSIL23] Watson, Huang, Heess: Coherent Soft Imitation Learning, NeurIPS 2023, arXiv 2305.16498
[LSIQ23] Al-Hafez, Tateo, Arenz, Zhao, Peters: LS-IQ, ICLR 2023, arXiv 2303.00599
[CQL20]  Kumar, Zhou, Tucker, Levine: Conservative Q-Learning, NeurIPS 2020, arXiv 2006.04779
[NHR99]  Ng, Harada, Russell: Policy invariance under reward transformations, ICML 1999
"""
