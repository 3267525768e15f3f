"""The algorithms: losses as pure functions, networks, and thin learners that hold the state.

Papers are cited by key:
[IQ21]     Garg et al., IQ-Learn: Inverse soft-Q Learning for Imitation, NeurIPS 2021, arXiv 2106.12142
[CSIL23]   Watson et al., Coherent Soft Imitation Learning, NeurIPS 2023, arXiv 2305.16498
[LSIQ23]   Al-Hafez et al., LS-IQ: Implicit Reward Regularization for Inverse RL, ICLR 2023, arXiv 2303.00599
[RECOIL24] Sikchi et al., Dual RL: Unification and New Methods for RL and Imitation, ICLR 2024, arXiv 2302.08560
[SQIL20] Reddy et al., SQIL: Imitation Learning via Reinforcement Learning with Sparse Rewards, ICLR 2020
[SPRINQL24] Hoang et al., SPRINQL: Sub-optimal Demonstrations driven Offline Imitation Learning, NeurIPS 2024
[CQL20]    Kumar et al., Conservative Q-Learning for Offline RL, NeurIPS 2020, arXiv 2006.04779
[IQL22]    Kostrikov et al., Offline RL with Implicit Q-Learning, ICLR 2022, arXiv 2110.06169
[XQL23]    Garg et al., Extreme Q-Learning: MaxEnt RL without Entropy, ICLR 2023, arXiv 2301.02328
[AWR19]    Peng et al., Advantage-Weighted Regression, arXiv 1910.00177
[EDAC21]   An et al., Uncertainty-Based Offline RL with Diversified Q-Ensemble, NeurIPS 2021, arXiv 2110.01548
[RORL22]   Yang et al., RORL: Robust Offline RL via Conservative Smoothing, NeurIPS 2022, arXiv 2206.02829
[TD3BC21]  Fujimoto and Gu, A Minimalist Approach to Offline RL, NeurIPS 2021, arXiv 2106.06860
[WGANGP17] Gulrajani et al., Improved Training of Wasserstein GANs, NeurIPS 2017, arXiv 1704.00028
[SAC18]    Haarnoja et al., Soft Actor-Critic, ICML 2018, arXiv 1801.01290
[ADAM15]   Kingma and Ba, Adam: A Method for Stochastic Optimization, ICLR 2015, arXiv 1412.6980
[ADAMW19]  Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019, arXiv 1711.05101
[DQN15]    Mnih et al., Human-level control through deep reinforcement learning, Nature 2015
[IMPALA18] Espeholt et al., IMPALA: Scalable Distributed Deep-RL, ICML 2018, arXiv 1802.01561
[DRQ20]    Yarats et al., Image Augmentation Is All You Need (DrQ), ICLR 2021, arXiv 2004.13649
[LN16]     Ba et al., Layer Normalization, arXiv 1607.06450
"""
