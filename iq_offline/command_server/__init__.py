"""A process that runs a pipeline's commands with everything imported, and the client that each command starts as."""
