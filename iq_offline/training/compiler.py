"""The process that compiles updates: `python -m iq_offline.training.compiler FOLDER`. See `ahead`."""

import signal
import sys
from pathlib import Path


def main(folder: Path) -> None:
    """Compile what `request` in that folder asks for into `kept` beside it."""
    import torch
    from torch._inductor import aot_compile

    from iq_offline.training.ahead import HELD, LIBRARY, REQUEST, Reader

    with (folder / REQUEST).open("rb") as file:
        reader = Reader(file)
        trace = reader.load().trace()
    kept = folder / "kept"
    kept.mkdir()
    numbers = {id(tensor): number for number, tensor in reader.tensors.items()}
    torch.save([numbers.get(id(tensor), tensor) for tensor in trace.held], kept / HELD)
    arguments = *trace.given, *(tensor.detach() for tensor in trace.held)
    exported = torch.export.export(trace.graph, arguments, strict=False).module()
    options = {"aot_inductor.output_path": str(kept / LIBRARY)}
    aot_compile(exported, arguments, options=options)


if __name__ == "__main__":
    # a cluster that takes its machine back asks every process to end; the run answers, which waits for this one
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    main(Path(sys.argv[1]))
