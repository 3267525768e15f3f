"""The process that compiles updates: `python -m iq_offline.training.compile.compiler`. See `aot_cache`."""

import signal
import sys
from pathlib import Path


def main(request: Path, folder: Path) -> None:
    """Compile what is asked for into that folder."""
    import torch
    from torch._inductor import aot_compile

    from iq_offline.training.compile.aot_cache import CONSTANTS, LIBRARY, Reader

    with request.open("rb") as file:
        reader = Reader(file)
        trace = reader.load().trace()
    torch.save(reader.places(trace.constants), folder / CONSTANTS)
    arguments = *trace.given, *(tensor.detach() for tensor in trace.constants)
    exported = torch.export.export(trace.graph, arguments, strict=False).module()
    aot_compile(exported, arguments, options={"aot_inductor.output_path": str(folder / LIBRARY)})


if __name__ == "__main__":
    # a cluster that takes its machine back asks every process to end; the run answers, which waits for this one
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
