"""`make fuzz`: thousands of damaged inputs, a table of what came of them, and exit 1 where one is a finding."""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from fuzz import doors
from fuzz.campaign import Campaign, Tally, make_template
from fuzz.doors import Input
from fuzz.processes import import_everything

EVERY_SECONDS = 15.0


def main() -> int:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="Of every choice (default 0).")
    parser.add_argument("--inputs", type=int, default=2000, help="Damaged inputs over all doors (default 2000).")
    parser.add_argument("--cores", type=int, default=2, help="Commands side by side (default 2).")
    parser.add_argument("--door", default="", help="Only doors whose name contains this text.")
    parser.add_argument("--quick", action="store_true", help="Only commands that take a fraction of a second.")
    parser.add_argument("--only", default="", help="One input, as a finding names it: DOOR:NUMBER:COMMAND.")
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings"), help="Where findings are kept.")
    options = parser.parse_args()
    import_everything()
    inputs = _chosen(options)
    scratch = Path(tempfile.mkdtemp(prefix="iq-offline-fuzz-"))
    try:
        tally = _campaign(options, inputs, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return _show(tally, options.out)


def _chosen(options: argparse.Namespace) -> list[Input]:
    if options.only:
        door, number, command = options.only.rsplit(":", 2)
        return [Input(door, int(number), options.seed, int(command))]
    return [
        chosen
        for chosen in doors.plan(options.seed, options.inputs, quick=options.quick)
        if options.door in chosen.door
    ]


def _campaign(options: argparse.Namespace, inputs: list[Input], scratch: Path) -> Tally:
    started = last = time.monotonic()
    campaign = Campaign(scratch / "template", scratch / "inputs", options.out.resolve())
    make_template(campaign.template, quick=options.quick)
    compared = [chosen for chosen in inputs if doors.BY_NAME[chosen.door].same] if options.quick else inputs
    campaign.check_sound(compared, options.cores)
    print(f"{len(inputs)} inputs; sound ones checked in {time.monotonic() - started:.0f} s", flush=True)

    def tell(done: int, tally: Tally) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY_SECONDS:
            last = time.monotonic()
            print(f"{done} of {len(inputs)}, {len(tally.findings)} findings, {last - started:.0f} s", flush=True)

    return campaign.run(inputs, options.cores, tell)


def _show(tally: Tally, kept: Path) -> int:
    groups = Counter((finding.chosen.door, finding.kind, finding.place) for finding in tally.findings)
    for (door, kind, place), count in groups.most_common():
        first = next(f for f in tally.findings if (f.chosen.door, f.kind, f.place) == (door, kind, place))
        print(f"{count:>4}  {door}: {kind}: {place}\n      {' '.join(first.chosen.words)}  [{first.damage[:120]}]")
    print(tally.table())
    if tally.findings:
        print(f"findings: {kept}")
    return 1 if tally.findings else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
