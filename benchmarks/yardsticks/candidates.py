"""Who is measured, what each one's update is, and which ratios are of interest."""

from dataclasses import dataclass

from . import flops


@dataclass(frozen=True)
class Candidate:
    """One worker process: a module beside this one and its arguments, in our environment or a peer's own."""

    name: str
    what: str
    command: tuple[str, ...]
    environment: str | None = None
    terms: flops.Terms | None = None
    """MFLOP of one update by what they are for, where they are counted."""

    @property
    def mflop(self) -> float | None:
        """Of one update."""
        return None if self.terms is None else sum(self.terms.values())

    @property
    def ours(self) -> bool:
        """Whether it is this project's."""
        return self.command[0] == "ours"


@dataclass(frozen=True)
class Comparison:
    """A ratio of interest: ours over a peer, and the least that is aimed at."""

    ours: str
    peer: str
    work: str
    bar: float | None = None


GEMM = "gemm"
LIMIT_SHAPE = "512x256x256"
"""The shape whose rate is called the limit: a hidden layer over (s, a) and (s, policy) together."""

CANDIDATES = (
    Candidate(GEMM, "matrix products alone", ("gemm",)),
    Candidate("ours-iq", "IQ-Learn, two critics, no prior, no entropy", ("ours", "iq"), terms=flops.iq()),
    Candidate("ours-iq-bf16", "ours-iq, hidden products in bfloat16", ("ours", "iq", "--bfloat16"), terms=flops.iq()),
    Candidate("ours-iq-cql", "the same, CQL over 2 x 15 sampled actions", ("ours", "iq-cql"), terms=flops.iq_cql()),
    Candidate("ours-iq-default", "`--method iq` as it comes", ("ours", "iq-default"), terms=flops.iq_default()),
    Candidate("ours-bc", "`--method bc` with ReLU", ("ours", "bc"), terms=flops.bc()),
    Candidate("ours-bc-bf16", "ours-bc, hidden products in bfloat16", ("ours", "bc", "--bfloat16"), terms=flops.bc()),
    Candidate("ours-discrete", "discrete IQ-Learn, 64x64, batch 32", ("ours", "discrete"), terms=flops.discrete()),
    Candidate("jax-iq", "the mathematics of ours-iq in a lax.scan", ("jax_iq",), "jax", terms=flops.iq()),
    Candidate("eager-iq", "the mathematics of ours-iq, plain loop", ("eager", "iq"), terms=flops.iq()),
    Candidate(
        "eager-discrete",
        "the mathematics of ours-discrete, plain loop",
        ("eager", "discrete"),
        terms=flops.discrete(),
    ),
    Candidate("d3rlpy-sac", "SAC, update() alone", ("d3rlpy_algorithms", "sac"), terms=flops.sac()),
    Candidate(
        "d3rlpy-sac-sampling", "SAC with its sampling", ("d3rlpy_algorithms", "sac", "--sampling"), terms=flops.sac()
    ),
    Candidate("d3rlpy-iql", "IQL, update() alone", ("d3rlpy_algorithms", "iql")),
    Candidate(
        "d3rlpy-cql",
        "CQL over 3 x 10 sampled actions, update() alone",
        ("d3rlpy_algorithms", "cql"),
        terms=flops.sac_cql(),
    ),
    Candidate("d3rlpy-bc", "BC, update() alone", ("d3rlpy_algorithms", "bc"), terms=flops.bc()),
    Candidate(
        "d3rlpy-bc-sampling", "BC with its sampling", ("d3rlpy_algorithms", "bc", "--sampling"), terms=flops.bc()
    ),
    Candidate("imitation-bc", "BC, train() with its data loader", ("imitation_bc",), "imitation"),
)

COMPARISONS = (
    Comparison("ours-iq", "d3rlpy-sac", "SAC does less: 0.73 of our products", 2.0),
    Comparison("ours-iq", "d3rlpy-sac-sampling", "SAC does less: 0.73 of our products"),
    Comparison("ours-iq", "d3rlpy-iql", "another method, networks alike"),
    Comparison("ours-iq", "jax-iq", "the same mathematics", 0.9),
    Comparison("ours-iq", "eager-iq", "the same mathematics"),
    Comparison("ours-iq-bf16", "ours-iq", "the same mathematics, hidden products in bfloat16"),
    Comparison("ours-iq-cql", "d3rlpy-cql", "30 sampled actions each", 1.05),
    Comparison("ours-iq-default", "d3rlpy-sac", "another method, networks alike"),
    Comparison("ours-bc", "d3rlpy-bc", "the same networks", 4.0),
    Comparison("ours-bc-bf16", "d3rlpy-bc", "the same networks, ours with hidden products in bfloat16"),
    Comparison("ours-bc", "d3rlpy-bc-sampling", "the same networks"),
    Comparison("ours-bc", "imitation-bc", "imitation also evaluates a value network", 4.0),
    Comparison("ours-discrete", "eager-discrete", "the same mathematics", 10.0),
)
FRACTION_BAR = {"ours-iq": 0.65}
"""Least share of the limit aimed at."""
