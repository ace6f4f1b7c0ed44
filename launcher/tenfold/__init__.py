"""Tenfold: plan, shard, launch and train; multi-host distributed training for TensorFlow."""

__version__ = "0.1.0"
