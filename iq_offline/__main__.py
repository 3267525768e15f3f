"""`python -m iq_offline` is `iq-offline`."""

from iq_offline.cli import main

main()
