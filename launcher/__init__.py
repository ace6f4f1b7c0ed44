"""The command line, cluster specs, the supervisor, back ends and the worker's entry."""
