"""The commands: each parses, calls one stage, prints. Heavy packages are imported by the command that needs them."""
