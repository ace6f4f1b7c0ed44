"""Two devices per worker, as on a host with two GPUs.

Call `use_two_devices` before the strategy is made. Without GPUs MultiWorkerMirroredStrategy uses
one device of each worker, so its list of devices is replaced.
"""

import tensorflow as tf
from tensorflow.python.distribute import collective_all_reduce_strategy


def use_two_devices() -> None:
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    collective_all_reduce_strategy.CollectiveAllReduceExtended._initialize_local_devices = (
        lambda self, _, worker: ((f"{worker}/device:CPU:0", f"{worker}/device:CPU:1"), "CPU")
    )
