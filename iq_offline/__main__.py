"""`python -m iq_offline` is `iq-offline`, run in the warm process of a pipeline where there is one."""

import sys

from iq_offline.handover import hand_over

hand_over(sys.argv[1:])

from iq_offline.cli import main  # noqa: E402  (costs nothing where the command was handed over)

main()
