"""Planning, writing, manifests and reading of sharded data sets."""
