"""The order of record ids, computed outside tf.data: the order of `order.shuffled_elements`.

tf.data takes about 2.5 µs of CPU time for each element that it interleaves, shuffles and batches,
which is more than all other work on a small record. The functions here do the same with arrays:
the interleave by blocks, and the shuffle buffer with the random numbers of tf.data's own shuffle.
"""

import math
import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np

# Record ids that are made at once.
_CHUNK_IDS: Final = 1 << 16  # also the most steps of a chunk, see `ChunkedEpochs`
# From this size on, few of the numbers that leave a shuffle buffer at once depend on each other.
_LARGE_BUFFER: Final = 1 << 14
# States that are kept for iterators which go on; each has the shuffle buffers of an epoch.
_MAX_STATES: Final = 2

# Philox-4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011.
_ROUNDS: Final = 10
_FACTORS: Final = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL: Final = (0x9E3779B9, 0xBB67AE85)
_LOW_BITS: Final = 0xFFFFFFFF
_LOW: Final = np.uint64(_LOW_BITS)
_HALF: Final = np.uint64(32)


def philox_numbers(seed: int, seed2: int, first: int, count: int) -> np.ndarray:
    """Return numbers of TensorFlow's random generator, uint64 [count] below 2**32.

    Args:
      seed, seed2: what TensorFlow's generator is made with.
      first: the position of the first number in its sequence.
      count: the number of numbers.
    """
    begin, end = first // 4, -(-(first + count) // 4)
    block = np.arange(begin, end, dtype=np.uint64)  # each gives four numbers
    low, high = (np.full_like(block, seed2 >> shift & _LOW_BITS) for shift in (0, 32))
    words = [block & _LOW, block >> _HALF, low, high]
    keys = [seed & _LOW_BITS, seed >> 32 & _LOW_BITS]
    for _ in range(_ROUNDS):
        first_product, second_product = _FACTORS[0] * words[0], _FACTORS[1] * words[2]
        words = [
            second_product >> _HALF ^ words[1] ^ np.uint64(keys[0]),
            second_product & _LOW,
            first_product >> _HALF ^ words[3] ^ np.uint64(keys[1]),
            first_product & _LOW,
        ]
        keys = [(key + weyl) & _LOW_BITS for key, weyl in zip(keys, _WEYL, strict=True)]
    numbers: np.ndarray = np.stack(words, axis=1).reshape(-1)
    return numbers[first - 4 * begin :][:count]


def interleaved(
    firsts: Sequence[int], counts: Sequence[int], *, abreast: int, block: int
) -> Iterator[np.ndarray]:
    """Yield what a tf.data interleave of ranges gives, in arrays of about _CHUNK_IDS.

    Args:
      firsts: the first number of each range.
      counts: the numbers in each range.
      abreast: ranges that are interleaved.
      block: numbers taken from one range before the next.
    """
    waiting = iter(zip(firsts, counts, strict=True))
    slots: list[tuple[int, int] | None] = [None] * abreast
    begins, lengths, total = [], [], 0
    empty = 0  # slots visited in a row that nothing is left for
    while empty < abreast:
        for slot in range(abreast):
            current = slots[slot] or next(waiting, None)
            if current is None:
                empty += 1
                continue
            empty = 0
            begin, left = current
            taken = min(left, block)
            begins.append(begin)
            lengths.append(taken)
            total += taken
            # A range is found to be at its end by asking for more: a turn that took all of its
            # numbers and no less than a block leaves the end to the next turn.
            slots[slot] = (begin + taken, left - taken) if taken == block else None
        if total >= _CHUNK_IDS:
            yield _joined(begins, lengths)
            begins, lengths, total = [], [], 0
    if total:
        yield _joined(begins, lengths)


def _joined(begins: Sequence[int], lengths: Sequence[int]) -> np.ndarray:
    """Return the numbers of ranges one after the other."""
    sizes = np.array(lengths)
    ends = np.cumsum(sizes)
    shifts = np.array(begins, np.int64) - (ends - sizes)
    numbers: np.ndarray = np.repeat(shifts, sizes) + np.arange(ends[-1])
    return numbers


def shuffled(
    numbers: Iterator[np.ndarray], total: int, *, buffer: int, seed: int
) -> Iterator[np.ndarray]:
    """Yield what ``tf.data.Dataset.shuffle`` makes of `numbers`, in arrays.

    tf.data's buffer is a ring: the number at a random position leaves, the oldest takes its place,
    and the next one takes the place of the oldest.

    Args:
      numbers: int64 arrays, `total` numbers in all.
      total: how many numbers there are.
      buffer: the size of the shuffle buffer.
      seed: the buffer's seed, where the graph's seed is 1.
    """
    buffer = min(buffer, total)
    ring = np.empty(buffer, np.int64)
    exchange = _exchange_together if buffer >= _LARGE_BUFFER else _exchange_singly
    filled = done = 0

    def leave(arriving: np.ndarray) -> np.ndarray:
        """Return the next numbers to leave, as many as arrive in their place."""
        nonlocal done
        oldest = np.arange(done, done + len(arriving), dtype=np.int64)
        # TensorFlow reduces seeds that are tensors so.
        drawn = philox_numbers(1, seed % (2**31 - 1), done, len(arriving)).astype(np.int64)
        leaving = (oldest + drawn % np.minimum(total - oldest, buffer)) % buffer
        done += len(arriving)
        return exchange(ring, leaving, oldest % buffer, arriving)

    for chunk in numbers:
        missing = min(buffer - filled, len(chunk))
        ring[filled : filled + missing] = chunk[:missing]
        filled += missing
        if len(chunk) > missing:
            yield leave(chunk[missing:])
    while done < total:
        yield leave(np.zeros(min(_CHUNK_IDS, total - done), np.int64))  # nothing more arrives


def _exchange_singly(
    ring: np.ndarray, leaving: np.ndarray, oldest: np.ndarray, arriving: np.ndarray
) -> np.ndarray:
    """Let the numbers at `leaving` leave, one after the other; see `shuffled`.

    Args:
      ring: the buffer, changed in place.
      leaving: the position that each number leaves from, int64 [k].
      oldest: the position of the oldest number at that time, int64 [k].
      arriving: the number that arrives then, int64 [k].
    """
    fast = array("q", ring.tobytes())  # single items of numpy arrays are slow
    left = []
    for index, old, number in zip(
        leaving.tolist(), oldest.tolist(), arriving.tolist(), strict=True
    ):
        left.append(fast[index])
        fast[index] = fast[old]
        fast[old] = number
    ring[:] = fast
    return np.array(left, np.int64)


def _exchange_together(
    ring: np.ndarray, leaving: np.ndarray, oldest: np.ndarray, arriving: np.ndarray
) -> np.ndarray:
    """Do what `_exchange_singly` does, many at once up to the next that depends on another."""
    left = np.empty(len(leaving), np.int64)
    first_use = np.empty(len(ring), np.int64)
    most = math.isqrt(len(ring))
    begin = 0
    while begin < len(leaving):
        end = min(begin + most, len(leaving))
        index, old = leaving[begin:end], oldest[begin:end]
        order = np.arange(end - begin)
        # The step at which a position is the oldest: it must not be used before and after that.
        turn = (index - old[0]) % len(ring)
        first_use[index[::-1]] = order[::-1]
        depends = (turn < order) | (first_use[index] < order)
        depends[turn[(turn < len(order)) & (turn > order)]] = True
        count = int(depends.argmax()) if depends.any() else len(order)
        index, old = index[:count], old[:count]
        left[begin : begin + count] = ring[index]
        ring[index] = ring[old]
        ring[old] = arriving[begin : begin + count]
        begin += count
    return left


class IdStream:
    """Takes ids from arrays; after the last there is the filler."""

    def __init__(self, arrays: Iterator[np.ndarray], filler: int) -> None:
        self._arrays = arrays
        self._filler = filler
        self._rest = np.empty(0, np.int64)

    def take(self, count: int) -> np.ndarray:
        """Return the next `count` ids."""
        parts, missing = [], count
        while missing:
            if not len(self._rest):
                found = next(self._arrays, None)
                self._rest = np.full(missing, self._filler) if found is None else found
            parts.append(self._rest[:missing])
            missing -= len(parts[-1])
            self._rest = self._rest[len(parts[-1]) :]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)


class ChunkedEpochs:
    """The ids of a worker's batches, chunk by chunk; chunk n is the same whenever it is asked for.

    A chunk continues from the state after the chunk before it, which is kept. Where it is not
    there, as when reading begins anew, the epoch's chunks up to it are made again.

    Args:
      lanes: gives the ids of each of the worker's lanes in an epoch.
      lane_counts: gives the ids of each lane in the steps from one to another of an epoch, int64
        [steps, lanes].
      steps: steps of an epoch.
      step_ids: about the ids of a step.
      filler: the id of no record, which follows the last id of a lane.
    """

    def __init__(
        self,
        lanes: Callable[[int], Sequence[Iterator[np.ndarray]]],
        lane_counts: Callable[[int, int], np.ndarray],
        *,
        steps: int,
        step_ids: int,
        filler: int,
    ) -> None:
        self._lanes = lanes
        self._lane_counts = lane_counts
        self._steps = steps
        self._filler = filler
        self.steps_per_chunk = max(1, min(steps, _CHUNK_IDS // step_ids))
        self.chunks_per_epoch = -(-steps // self.steps_per_chunk)
        # States by the number of the next chunk, taken out while they are used.
        self._states: dict[int, list[IdStream]] = {}
        self._lock = threading.Lock()

    def chunk(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids of chunk `number` of the run, step by step, and the ids of each step.

        They are int64 [ids] and int64 [steps].
        """
        epoch, index = divmod(number, self.chunks_per_epoch)
        with self._lock:
            streams = self._states.pop(number, None) if index else None
        if streams is None:
            streams = [IdStream(arrays, self._filler) for arrays in self._lanes(epoch)]
            for before in range(index):
                self._take(streams, before)
        found = self._take(streams, index)
        if index + 1 < self.chunks_per_epoch:
            with self._lock:
                self._states[number + 1] = streams
                while len(self._states) > _MAX_STATES:
                    self._states.pop(next(iter(self._states)))
        return found

    def _take(self, streams: Sequence[IdStream], index: int) -> tuple[np.ndarray, np.ndarray]:
        begin = index * self.steps_per_chunk
        counts = self._lane_counts(begin, min(begin + self.steps_per_chunk, self._steps))
        by_lane = [
            stream.take(total)
            for stream, total in zip(streams, counts.sum(axis=0).tolist(), strict=True)
        ]
        # The step of each of these ids; 16 bits are enough for a chunk's steps, and sort fastest.
        steps = np.arange(len(counts), dtype=np.uint16)
        of_id = np.concatenate([np.repeat(steps, lane) for lane in counts.T])
        by_step = np.argsort(of_id, kind="stable")
        return np.concatenate(by_lane)[by_step], counts.sum(axis=1)
