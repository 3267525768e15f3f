"""A GPU in ten minutes: the same updates as on the CPU, and how fast they are beside the card's limits.

    python -m benchmarks gpu --json gpu.json

It needs no network and no data, ends within eight minutes, and prints one table. Each part runs in a process of its
own with its own time; a part that fails or takes too long is a row with the reason, and the others go on.

Equality: for every method whose updates are this library's, 100 float32 updates on the CPU, and each of them on the
device, too, from the CPU's state before it, on the same batch and noise. What an update leaves, weights, averages of
gradients and targets, may be 1e-4 apart (relative, Euclidean norm). `in a row` is how far the policy is from the CPU's
without that state: rounding alone grows a thousandfold there, so that it has no bound. Clones of chosen episodes make
the updates of `bc`, and d3rlpy's algorithms are its own: they are left out.

Speed: updates a second of the wall, those of several seeds added up, with drawing batches, once they are warm. Batch
256, 256 x 256 (`discrete`: 32, 64 x 64; pictures: 64, Nature encoder). `of the products` is the rate of the update's
matrix products beside that of one large product on this device, `of the memory` the least number of bytes that an
update moves beside a copy's rate (benchmarks/yardsticks/flops.py counts both). `--device cpu --quick` rehearses it all.
"""

import gc
import math
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benchmarks.arguments import Parser
from benchmarks.markdown import table
from benchmarks.results import Row, processor, result_file
from benchmarks.yardsticks import flops, modes
from benchmarks.yardsticks.flops import ACTOR, CRITIC, SMALL_Q
from benchmarks.yardsticks.ours import CONFIGS, learner_of, synthetic_data
from iq_offline.algorithms.adam import Adam
from iq_offline.algorithms.bc import BCLearner
from iq_offline.algorithms.build import clone_policy
from iq_offline.algorithms.learner import OwnLearner
from iq_offline.algorithms.noise import Draw, Stream, generator
from iq_offline.batch import Batch
from iq_offline.config.base import Precision
from iq_offline.config.cloning import BCConfig
from iq_offline.config.q_learning import QLearningConfig
from iq_offline.config.train import algorithm_config
from iq_offline.errors import ConfigError
from iq_offline.methods import METHODS
from iq_offline.training.batches import SupplementarySampler, beside
from iq_offline.training.compile.tracing import by_part, carried_by
from iq_offline.training.learnt import Data, build_learner

CPU = torch.device("cpu")
TOTAL_SECONDS = 450.0
UPDATES, TOLERANCE = 100, 1e-4
FIRST = 10
"""Updates before those that are compared: Adam's first steps are as large for a gradient that is rounding alone."""
COUNTED = {
    "iq-default": (flops.iq_default, (ACTOR, CRITIC), (CRITIC,)),
    "iq": (flops.iq, (ACTOR, CRITIC, CRITIC), (CRITIC, CRITIC)),
    "bc": (flops.bc, (ACTOR,), ()),
    "discrete": (flops.discrete, (SMALL_Q,), ()),
}
"""How an update's products are counted, the networks that it learns, and those that follow slowly."""
PRODUCTS, MEMORY = "one large product", "a copy"


@dataclass(frozen=True)
class Settings:
    """Where to measure, and how much of it."""

    device: str
    quick: bool

    @property
    def seconds(self) -> float:
        """Of one measurement."""
        return 0.05 if self.quick else 2.0

    @property
    def at_once(self) -> int:
        """Updates between two waits for the device; a multiple of what small learners make a call."""
        return 8 if self.quick else 96

    def data(self, *, discrete: bool, on_cpu: bool = False) -> Data:
        """The synthetic data, there or on the CPU."""
        return synthetic_data(discrete=discrete, device=CPU if on_cpu else torch.device(self.device))


Part = Callable[[Settings], Iterator[Row]]


def main(arguments: list[str]) -> None:
    """Run all parts, print the table."""
    parser = Parser(__name__, __doc__)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to rehearse (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="few updates: the numbers say nothing")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_json()
    options = parser.parse(arguments)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError("PyTorch sees no CUDA device here", "rehearse with --device cpu --quick")
    deadline = time.monotonic() + TOTAL_SECONDS
    with tempfile.TemporaryDirectory() as home, result_file(options) as rows:
        os.environ["IQ_OFFLINE_HOME"] = home  # what the compiler keeps is kept there
        rows.append({"what": "device", "how": options.device, "remark": device_name(options.device)})
        for name in options.only or PARTS:
            print(f"{name}, {deadline - time.monotonic():.0f} seconds left", file=sys.stderr, flush=True)
            rows += measured(name, Settings(options.device, options.quick), deadline)
        beside_the_limits(rows)
    show(rows)
    failed = [row["part"] for row in rows if row.get("equal") is False]
    if failed:
        raise SystemExit(f"{len(failed)} methods are not equal on this device")


def device_name(device: str) -> str:
    """Of the card, with its memory and CUDA's version; else the processor's."""
    if not device.startswith("cuda"):
        return processor()
    about = torch.cuda.get_device_properties(device)
    return f"{about.name}, {about.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"


def measured(name: str, settings: Settings, deadline: float) -> list[Row]:
    """The rows of a part that runs in a process of its own; the last one is the reason where it did not end well."""
    part, budget = PARTS[name]
    started = time.monotonic()
    ends = min(deadline, started + budget)
    if started >= deadline:
        return [{"part": name, "what": name, "failed": "no time was left"}]
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(part, settings, writer))
    process.start()
    writer.close()
    rows, failed = [], None
    try:
        while failed is None:
            if not reader.poll(max(0.0, ends - time.monotonic())):
                failed = f"not done after {ends - started:.0f} seconds"
                break
            found = reader.recv()
            if found is None:
                break
            rows.append({"part": name, **found})
    except EOFError:
        process.join()
        failed = f"its process ended with status {process.exitcode}"
    finally:
        assert process.pid is not None
        with suppress(ProcessLookupError):  # the compilers that it started
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
    return rows if failed is None else [*rows, {"part": name, "what": name, "failed": failed}]


def _run(part: Part, settings: Settings, writer: Connection) -> None:
    """In the process of a part: send its rows, then None."""
    os.setsid()
    torch.set_num_threads(1)
    try:
        for row in part(settings):
            writer.send(row)
    except Exception as error:  # noqa: BLE001 - the reason is a row
        writer.send({"what": part.__name__, "failed": reason_of(error)})
    writer.send(None)


def reason_of(error: BaseException) -> str:
    """Its kind and the first line of what it says."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0][:200]}" if said else type(error).__name__


def attempted(row: Row, measure: Callable[[], Row]) -> Row:
    """The row with what was measured and the device's peak memory, or with the reason why not."""
    gc.collect()  # learners hold themselves: those of earlier rows would count
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        found = measure()
    except modes.NotAvailable as error:
        return row | {"failed": f"not available: {error}"}
    except Exception as error:  # noqa: BLE001 - the reason is a row, and other rows follow
        return row | {"failed": reason_of(error)}
    if torch.cuda.is_available():
        found["peak_megabytes"] = torch.cuda.max_memory_allocated() / 2**20
    return row | found


def limits(settings: Settings) -> Iterator[Row]:
    """Rates of large products, of an update's product, and of copying; the time of launching a kernel."""
    size, device = (256 if settings.quick else 8192), torch.device(settings.device)

    def product(rows: int, width: int, dtype: torch.dtype) -> Row:
        left, right = (torch.randn(n, width, device=device, dtype=dtype) for n in (rows, width))
        return {"gflop_per_second": 2e-9 * rows * width * width * _calls(lambda: left @ right, settings)}

    def copy() -> Row:
        source = torch.empty(2**20 if settings.quick else 2**28, device=device)
        target = torch.empty_like(source)
        return {"gigabytes_per_second": 8e-9 * len(source) * _calls(lambda: target.copy_(source), settings)}

    def launch() -> Row:
        one = torch.zeros(1, device=device)
        return {"launch_microseconds": 1e6 / _calls(lambda: one.add_(1), settings)}

    yield attempted({"what": PRODUCTS, "how": "float32"}, lambda: product(size, size, torch.float32))
    yield attempted({"what": PRODUCTS, "how": "bfloat16"}, lambda: product(size, size, torch.bfloat16))
    yield attempted(
        {"what": "a hidden layer, 512 x 256 x 256", "how": "float32"}, lambda: product(512, 256, torch.float32)
    )
    yield attempted({"what": MEMORY, "how": "float32"}, copy)
    yield attempted({"what": "the smallest kernel", "how": "float32"}, launch)


def _calls(call: Callable[[], object], settings: Settings) -> float:
    """Calls a second, once it is warm."""
    for _ in range(3):
        call()
    done, started, passed = 0, modes.now(), 0.0
    while not done or passed < settings.seconds / 4:
        for _ in range(10):
            call()
        done += 10
        passed = modes.now() - started
    return done / passed


def equality(settings: Settings) -> Iterator[Row]:
    """Each method's updates on the CPU and there."""
    torch.set_num_threads(min(4, os.cpu_count() or 1))
    for name, method in METHODS.items():
        for discrete in (False, True):
            if (method.discrete if discrete else method.continuous) is None:
                continue
            changes = ["hidden_sizes=[16]", "prior.hidden_sizes=[16]"] if settings.quick else []
            config = small(name, changes, discrete=discrete)
            if isinstance(config, BCConfig | QLearningConfig):
                row = {"what": f"{name}, {'discrete' if discrete else 'continuous'}", "how": "as on the CPU"}
                yield attempted(
                    row, lambda config=config, discrete=discrete: difference(config, settings, discrete=discrete)
                )


def small(method: str, changes: list[str], *, discrete: bool) -> Any:
    """The method's own settings, with those of the changes that it has."""
    fields = type(algorithm_config(method, discrete=discrete)).model_fields
    return algorithm_config(
        method,
        discrete=discrete,
        overrides=[change for change in changes if change.split(".")[0].split("=")[0] in fields],
    )


def difference(config: Any, settings: Settings, *, discrete: bool) -> Row:
    """The largest relative difference that one update makes, and that of the policy after all of them in a row."""
    first, updates = (1, 4) if settings.quick else (FIRST, UPDATES)
    (own, batches), (there, same), (alone, again) = (
        given(config, settings.data(discrete=discrete, on_cpu=on_cpu)) for on_cpu in (True, False, False)
    )
    largest = 0.0
    for number in range(first + updates):
        put(there, carried_by(own))
        for learner, drawn in ((own, batches), (there, same), (alone, again)):
            learner.update(next(drawn))
        if number >= first:
            largest = max(largest, *(relative(a, b) for a, b in zip(vectors(there), vectors(own), strict=True)))
    drift = relative(*(policy_of(learner) for learner in (alone, own)))
    return {"largest_difference": largest, "updates": updates, "drift": drift, "equal": largest <= TOLERANCE}


def given(config: Any, data: Data) -> tuple[Any, modes.Batches]:
    """A learner with the initial weights of seed 0, its prior untrained, and its batches; noise is drawn on the CPU."""
    data = with_supplementary(data, config)
    spec, prior = data.spec(0), getattr(config, "prior", None)
    learner: Any
    if isinstance(config, BCConfig):
        learner = BCLearner(config, clone_policy(config, spec))
    else:
        learner = build_learner(config, spec, None if prior is None else clone_policy(prior, spec))
    if learner.noise is not None:
        learner.noise = DrawnOnCPU(data.device)
    return learner, batches_of(config, data)


@torch.no_grad()
def put(learner: Any, carried: list[torch.Tensor]) -> None:
    """Give a learner what another one's updates have changed."""
    for part, tensors in zip(learner.changed, by_part(learner, carried), strict=True):
        for held, tensor in zip(part.pieces(), tensors, strict=True):
            held.copy_(tensor)


def vectors(learner: Any) -> Iterator[torch.Tensor]:
    """What an update changes: each optimiser's weights and its average of gradients, each target; on the CPU."""
    for part in learner.changed:
        pieces = [piece.detach().cpu().double().flatten() for piece in part.pieces()]
        count = len(pieces) // 3 if isinstance(part, Adam) else len(pieces)
        yield torch.cat(pieces[:count])
        if isinstance(part, Adam):
            yield torch.cat(pieces[count : 2 * count])


def policy_of(learner: Any) -> torch.Tensor:
    """The policy's weights in one vector, on the CPU."""
    return torch.cat([weights.detach().cpu().double().flatten() for weights in learner.policy.parameters()])


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Their difference over the expected one, in the Euclidean norm; infinite where it is no number."""
    apart = float((found - expected).norm())
    return 0.0 if apart == 0 else math.inf if math.isnan(apart) else apart / float(expected.norm())


class DrawnOnCPU:
    """Noise that is the same on any device."""

    def __init__(self, device: torch.device) -> None:
        self._generator, self._device = generator(0, Stream.ACTIONS), device

    def draw(self, draw: Draw) -> torch.Tensor:
        """Drawn there, and moved."""
        return draw.make(self._generator).to(self._device)


def with_supplementary(data: Data, config: Any) -> Data:
    """The demonstrations once more, where the method learns from other data or from what it experiences, too."""
    if not (config.reads_supplementary or hasattr(config, "environment_steps")):
        return data
    return Data(data.expert, data.space, data.device, SupplementarySampler([data.expert.proper]))


def batches_of(config: Any, data: Data) -> modes.Batches:
    """As training draws them."""
    size = config.batch_size if data.supplementary is None else config.batch_size // 2
    expert = data.expert.batches(size, generator(0, Stream.BATCHES))
    others = initials = None
    if data.supplementary is not None:
        others = data.supplementary.batches(size, generator(0, Stream.SUPPLEMENTARY_BATCHES))
    if getattr(config, "needs_initial_observations", False):
        random = generator(0, Stream.INITIAL_BATCHES)
        initials = (data.expert.initial_observations(random) for _ in iter(int, 1))
    return beside(expert, others, initials)


def speed(
    settings: Settings, how: str, way: Callable[[OwnLearner], Any], names: tuple[str, ...] = tuple(COUNTED)
) -> Iterator[Row]:
    """Updates a second of each learner."""
    for name in names:
        made = maker(name, settings)
        yield attempted(counted(name, how), lambda made=made: _rate(made, way, settings))


def _rate(made: modes.Made, way: Callable[[OwnLearner], Any], settings: Settings) -> Row:
    return {"updates_per_second": modes.updates_a_second(made, way, settings.seconds, settings.at_once)}


def counted(name: str, how: str) -> Row:
    """A row with what an update costs."""
    terms, learnt, slow = COUNTED[name]
    moved = sum(terms(cost=flops.megabytes).values()) + flops.state_megabytes(learnt, slow)
    return {"what": name, "how": how, "seeds": 1, "mflop": sum(terms().values()), "megabytes": moved}


def maker(name: str, settings: Settings, *, seed: int = 0, precision: Precision = Precision.FLOAT32) -> modes.Made:
    """What makes that learner and its batches."""

    def made() -> tuple[Any, modes.Batches]:
        config = CONFIGS[name]().model_copy(update={"precision": precision})
        data = settings.data(discrete=name == "discrete")
        return learner_of(config, data, seed), data.expert.batches(config.batch_size, generator(seed, Stream.BATCHES))

    return made


def eager(settings: Settings) -> Iterator[Row]:
    """As PyTorch runs them."""
    return speed(settings, "eager", modes.eager)


def compile_on(settings: Settings) -> Iterator[Row]:
    """As `--compile on` makes them."""
    return speed(settings, "--compile on", modes.compile_on)


def compiled(settings: Settings) -> Iterator[Row]:
    """Without a graph."""
    return speed(settings, "compiled, no CUDA graph", modes.compiled)


def graph(settings: Settings) -> Iterator[Row]:
    """Without a compiler."""
    return speed(settings, "CUDA graph, not compiled", modes.graph)


def bfloat16(settings: Settings) -> Iterator[Row]:
    """Products of hidden layers in 16 bits, as `--set precision=bfloat16` has them."""
    for name in ("iq", "bc"):
        made = maker(name, settings, precision=Precision.BFLOAT16)
        row = counted(name, "--compile on, bfloat16")
        yield attempted(row, lambda made=made: _rate(made, modes.compile_on, settings))


def seeds_1(settings: Settings) -> Iterator[Row]:
    """One seed by the way of several."""
    return _together(settings, 1)


def seeds_5(settings: Settings) -> Iterator[Row]:
    """Five at once."""
    return _together(settings, 5)


def seeds_20(settings: Settings) -> Iterator[Row]:
    """Twenty at once."""
    return _together(settings, 20)


def _together(settings: Settings, seeds: int) -> Iterator[Row]:
    for name in ("iq-default", "discrete"):
        made = [maker(name, settings, seed=seed) for seed in range(seeds)]
        updates = settings.at_once if settings.quick else 10 * settings.at_once
        row = counted(name, "seeds batched by vmap") | {"seeds": seeds}
        yield attempted(row, lambda made=made, updates=updates: {"updates_per_second": modes.together(made, updates)})


def pictures(settings: Settings) -> Iterator[Row]:
    """Learning from bytes: drawn on the host and sent, and on the device already."""
    from benchmarks.data import frames

    device = torch.device(settings.device)
    with tempfile.TemporaryDirectory() as folder:
        stored = frames.made(Path(folder), 500 if settings.quick else 20_000)

        def held(method: str) -> tuple[OwnLearner, modes.Batches]:
            learner, batches = frames.our_learner(stored, method, device)
            some = [bytes_of(next(batches)) for _ in range(2 if settings.quick else 16)]
            return learner, (widened(some[number % len(some)]) for number in count())

        for method in ("bc", "iq"):
            made = {
                "eager, drawn on the host": (
                    lambda method=method: frames.our_learner(stored, method, device),
                    modes.eager,
                ),
                "eager, bytes on the device": (lambda method=method: held(method), modes.eager),
                "--compile on, bytes on the device": (lambda method=method: held(method), modes.compile_on),
            }
            for how, (make, way) in made.items():
                row = {"what": f"pictures, {method}", "how": how, "seeds": 1}
                yield attempted(row, lambda make=make, way=way: _rate(make, way, settings))


def bytes_of(batch: Batch) -> tuple[Batch, tuple[torch.Tensor, torch.Tensor]]:
    """A batch whose pictures are bytes."""
    return batch, (batch.observations.byte(), batch.next_observations.byte())


def widened(kept: tuple[Batch, tuple[torch.Tensor, torch.Tensor]]) -> Batch:
    """The batch that a learner gets."""
    batch, (here, there) = kept
    return replace(batch, observations=here.float(), next_observations=there.float())


PARTS: dict[str, tuple[Part, float]] = {
    "limits": (limits, 60),
    "equality": (equality, 150),
    "eager": (eager, 60),
    "compile-on": (compile_on, 120),
    "seeds-5": (seeds_5, 90),
    "pictures": (pictures, 90),
    "graph": (graph, 60),
    "bfloat16": (bfloat16, 60),
    "seeds-20": (seeds_20, 90),
    "seeds-1": (seeds_1, 60),
    "compiled": (compiled, 60),
}
"""Each part with the most seconds that it may take."""


def beside_the_limits(rows: list[Row]) -> None:
    """Add to each speed the shares of the device's rates, where both are known."""
    rates = {(row["what"], row["how"]): row for row in rows if row.get("part") == "limits"}
    memory = rates.get((MEMORY, "float32"), {}).get("gigabytes_per_second")
    for row in rows:
        if row.get("updates_per_second") is None or "mflop" not in row:
            continue
        kind = "bfloat16" if "bfloat16" in row["how"] else "float32"
        products = rates.get((PRODUCTS, kind), {}).get("gflop_per_second")
        if products:
            row["share_of_products"] = row["updates_per_second"] * row["mflop"] / 1e3 / products
        if memory:
            row["share_of_memory"] = row["updates_per_second"] * row["megabytes"] / 1e3 / memory


def show(rows: list[Row]) -> None:
    """The table."""
    columns = ["what", "how", "seeds", "updates a second", "of the products", "of the memory", "peak MB", "remark"]
    print(table(columns, [[_cell(row, key) for key in KEYS] + [remark(row)] for row in rows]))


KEYS = {
    "what": "{}",
    "how": "{}",
    "seeds": "{}",
    "updates_per_second": "{:,.0f}",
    "share_of_products": "{:.1%}",
    "share_of_memory": "{:.1%}",
    "peak_megabytes": "{:,.0f}",
}


def _cell(row: Row, key: str) -> str:
    return KEYS[key].format(row[key]) if row.get(key) is not None else "-"


def remark(row: Row) -> str:
    """What a row has to say beside its figures."""
    if "failed" in row:
        return f"failed: {row['failed']}" if not row["failed"].startswith("not available") else row["failed"]
    if "equal" in row:
        verdict = "equal" if row["equal"] else f"NOT EQUAL, at most {TOLERANCE:g}"
        return f"{row['largest_difference']:.1e} an update: {verdict}; {row['drift']:.1e} in a row"
    for key, form in (("gflop_per_second", "{:,.0f} GFLOP/s"), ("gigabytes_per_second", "{:,.0f} GB/s")):
        if key in row:
            return form.format(row[key])
    if "launch_microseconds" in row:
        return f"{row['launch_microseconds']:.1f} µs a launch"
    return str(row.get("remark", ""))
