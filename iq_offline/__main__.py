"""`python -m iq_offline` is `iq-offline`, run by the command server of a pipeline where there is one."""

import sys

from iq_offline.command_server.client import send_command

send_command(sys.argv[1:])

from iq_offline.cli import main  # noqa: E402  (costs nothing where the server ran the command)

main()
