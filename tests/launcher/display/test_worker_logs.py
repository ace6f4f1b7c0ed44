"""The filter that hides TensorFlow's log lines from the screen, but no line of the user's."""

import io

import pytest
from rich.console import Console

from tenfold.launcher.display.live_table import TableView
from tenfold.launcher.display.plain import PlainView
from tenfold.launcher.display.view import View
from tenfold.launcher.display.worker_logs import is_noise

# Lines of TensorFlow 2.21, of 2.21 with absl's logging initialised, and of 2024.
NOISE = (
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1795382899.355895   10743 port.cc:153] oneDNN custom operations are on. You may "
    "see slightly different numerical results due to floating-point round-off errors",
    "I0000 00:00:1795382899.356452   10743 cudart_stub.cc:31] Could not find cuda drivers on your "
    "machine, GPU will not be used.",
    "I0000 00:00:1795382900.479521   10743 cpu_feature_guard.cc:227] This TensorFlow binary is "
    "optimized to use available CPU instructions in performance-critical operations.",
    "To enable the following instructions: AVX2 AVX512F FMA, in other operations, rebuild "
    "TensorFlow with the appropriate compiler flags.",
    "E0000 00:00:1795382909.182459   10743 cuda_platform.cc:52] failed call to cuInit: INTERNAL: "
    "CUDA error: Failed call to cuInit: UNKNOWN ERROR (303)",
    "W0000 00:00:1795382911.274913   10743 dataset.cc:997] Input of GeneratorDatasetOp::Dataset "
    "will not be optimized because the dataset does not implement the AsGraphDefInternal() method",
    "I1122 21:28:20.479521   10743 cpu_feature_guard.cc:227] This TensorFlow binary is optimized",
    "2024-05-02 11:02:13.117531: I external/local_tsl/tsl/cuda/cudart_stub.cc:32] Could not find "
    "cuda drivers on your machine, GPU will not be used.",
    "2024-05-02 11:02:13.166032: E external/local_xla/xla/stream_executor/cuda/cuda_dnn.cc:9261] "
    "Unable to register cuDNN factory: Attempting to register factory for plugin cuDNN when one",
    "2024-05-02 11:02:14.003125: W tensorflow/compiler/tf2tensorrt/utils/py_utils.cc:38] TF-TRT "
    "Warning: Could not find TensorRT",
)
WORTH_SHOWING = (
    "",
    "loss 0.5",
    # A user's own absl logging, in a program under absl.app and without.
    "W1122 10:00:00.123456 1 train.py:12] loss is NaN",
    "I1122 10:00:00.123456 140213 train.py:12] epoch 3",
    "I1122 10:00:00.123456 139801623456640 evaluate.py:7] port.cc:153] is what TensorFlow says",
    "WARNING:absl:hello",
    "INFO:tensorflow:Waiting for the cluster, timeout = inf",
    "2026-11-22 10:00:00.123456: I am a program with a clock of its own",
    "2026-11-22 10:00:00.123456: W train.py:12] loss is NaN",
    # Errors of TensorFlow.
    "E0000 00:00:1795382999.100000   10743 ring_alg.cc:291] Aborting RingReduce with UNAVAILABLE: "
    "Socket closed",
    "F0000 00:00:1795382999.100000   10743 tensor.cc:852] Check failed: IsAligned()",
    # A user's words about the same things.
    "RuntimeError: Could not find cuda drivers on your machine, GPU will not be used.",
    "my check: failed call to cuInit: no driver on node-a",
    "To enable the following instructions: read the manual",
    "Unable to register cuDNN factory",
)


@pytest.mark.parametrize("line", NOISE)
def test_tensorflow_log_lines_are_noise(line: str) -> None:
    assert is_noise(line)


@pytest.mark.parametrize("line", WORTH_SHOWING)
def test_user_lines_and_errors_are_not_noise(line: str) -> None:
    assert not is_noise(line)


@pytest.mark.parametrize("show_tf_logs", [False, True])
@pytest.mark.parametrize("kind", [PlainView, TableView])
def test_noise_is_shown_on_request(kind: type, *, show_tf_logs: bool) -> None:
    stream = io.StringIO()
    where = Console(file=stream) if kind is TableView else stream
    view: View = kind(where, show_tf_logs=show_tf_logs)
    lines = [*NOISE, *WORTH_SHOWING]
    for line in lines:
        view.line(3, line)
    shown = lines if show_tf_logs else WORTH_SHOWING
    assert stream.getvalue().splitlines() == [f"[worker 3] {line}" for line in shown]
