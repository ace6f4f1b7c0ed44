"""Keras without its drawing and scikit-learn modules, which load at their first use."""

import subprocess
import sys

START = """
import sys
from tenfold.data.runtime.deferred_keras import defer_unused_keras_modules

defer_unused_keras_modules()
defer_unused_keras_modules()
import inspect, threading
import keras, tensorflow as tf

def loaded():
    return {"matplotlib", "sklearn"} & set(sys.modules)

inspect.getmodule(len)  # looks at every module
assert tf.keras.layers.Dense and keras.saving.load_model
assert not loaded(), loaded()
"""

USE = """
classes = []
def use():
    classes.append(keras.wrappers.SKLearnClassifier)
threads = [threading.Thread(target=use) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(classes) == 4 and len(set(classes)) == 1
assert "sklearn" in loaded()
from keras.visualization import plot_image_gallery
assert "matplotlib" in loaded()
assert keras.visualization.plot_image_gallery is plot_image_gallery
assert tf.keras.visualization.plot_image_gallery is plot_image_gallery
assert not hasattr(keras.wrappers, "Nothing")
"""


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    return done.stderr if done.returncode else ""


def test_deferred_modules_load_at_first_use() -> None:
    assert run(START + USE) == ""


def test_star_import_of_deferred_module_has_its_names() -> None:
    assert run(START + "from keras.wrappers import *\nSKLearnRegressor\n") == ""
