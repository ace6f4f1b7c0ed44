"""TFRecord frames: compared with TensorFlow's, read from any place, and damaged."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.data.format.tfrecord import (
    RecordError,
    bytes_reader,
    crc32c,
    file_reader,
    fingerprint64,
    frame,
    joined_crc32c,
    read_frames,
    read_records,
)

PAYLOADS = [b"", b"a", bytes(range(256)) * 5, b"last"]


def read(data: bytes) -> list[bytes]:
    return [payload for _, payload in read_records(io.BytesIO(data), len(data))]


@given(st.lists(st.binary(max_size=500)))
def test_framed_payloads_are_read_back(payloads: list[bytes]) -> None:
    assert read(b"".join(map(frame, payloads))) == payloads


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=8), st.data())
def test_readers_give_the_same_frames(payloads: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(map(frame, payloads))
    frames = list(read_frames(bytes_reader(whole), len(whole)))
    assert [found.payload for found in frames] == payloads
    assert list(read_frames(file_reader(io.BytesIO(whole)), len(whole))) == frames
    assert [found.end for found in frames] == [*[f.offset for f in frames[1:]], len(whole)]
    headers = list(read_frames(bytes_reader(whole), len(whole), payload=False))
    assert headers == [replace(found, payload=b"", checksum=0) for found in frames]
    # From any record on, the frames are the same.
    start = data.draw(st.sampled_from(frames))
    rest = read_frames(bytes_reader(whole), len(whole), index=start.index, offset=start.offset)
    assert list(rest) == frames[start.index :]


def test_damaged_payload_does_not_end_the_frames() -> None:
    whole = bytearray(b"".join(map(frame, [b"first", b"second"])))
    whole[12] ^= 1
    first, second = read_frames(bytes_reader(whole), len(whole))
    assert "the checksum of its 5 bytes" in str(first.damage())
    assert second.damage() is None


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_joined_crc32c_of_two_parts(first: bytes, second: bytes) -> None:
    assert joined_crc32c(crc32c(first), crc32c(second), len(second)) == crc32c(first + second)


def test_joined_crc32c_of_long_parts() -> None:
    first, second = b"\x5a" * 1000, bytes(range(256)) * 10_000
    assert joined_crc32c(crc32c(first), crc32c(second), len(second)) == crc32c(first + second)


@pytest.mark.timeout(120)
def test_frames_equal_those_of_tensorflow(tmp_path: Path) -> None:
    import tensorflow as tf

    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.write_bytes(b"".join(map(frame, PAYLOADS)))
    with tf.io.TFRecordWriter(str(theirs)) as writer:
        for payload in PAYLOADS:
            writer.write(payload)
    assert ours.read_bytes() == theirs.read_bytes()
    prints = tf.fingerprint(PAYLOADS).numpy()
    assert [int.from_bytes(row.tobytes(), "little") for row in prints] == [
        fingerprint64(payload) for payload in PAYLOADS
    ]


def test_flipped_bits_and_cuts_name_the_record() -> None:
    data = b"".join(map(frame, [*PAYLOADS[:2], b"xyz"]))
    bounds = [16, 33]
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(RecordError) as caught:
            read(bytes(damaged))
        index = sum(bit // 8 >= bound for bound in bounds)
        assert (caught.value.index, caught.value.offset) == (index, [0, *bounds][index])
    for length in set(range(len(data))) - {0, *bounds}:
        with pytest.raises(RecordError):
            read(data[:length])
