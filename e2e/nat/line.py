#!/usr/bin/env python3
"""line.py ONE OTHER: a line between two network devices that it makes, TAP devices of these names, in the namespace where
it starts; they may be moved to others. What is written to it sets how the line is from then on: `delay 50`, `delay 40
jitter 10 loss 2`; milliseconds and per cent, each way. Frames never overtake each other.

The kernel's own means for this, netem, is not in every kernel."""
import collections
import fcntl
import os
import random
import selectors
import struct
import sys
import time

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
# More frames than this do not wait for one end: further ones are lost, as in a router.
MOST_WAITING = 10_000


class End:
    """One end of the line, and the frames that are on their way to it."""

    def __init__(self, name):
        self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(self.fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
        self.coming = collections.deque()
        self.last = 0.0

    def take(self, frame, how):
        """Puts a frame on its way, or loses it."""
        if random.random() * 100 < how["loss"] or len(self.coming) >= MOST_WAITING:
            return
        delay = how["delay"] + random.uniform(-how["jitter"], how["jitter"])
        self.last = max(self.last, time.monotonic() + max(0.0, delay) / 1000)
        self.coming.append((self.last, frame))

    def deliver(self):
        """Hands over what has arrived by now."""
        now = time.monotonic()
        while self.coming and self.coming[0][0] <= now:
            try:
                os.write(self.fd, self.coming.popleft()[1])
            except OSError:
                pass  # the device is down: what comes for it is lost


def frames(end):
    """What has been sent into this end, some at a time, so that the other end has its turn."""
    for _ in range(64):
        try:
            yield os.read(end.fd, 65535)
        except OSError:
            return


def main():
    one, other = End(sys.argv[1]), End(sys.argv[2])
    how = {"delay": 0.0, "jitter": 0.0, "loss": 0.0}
    orders = os.fdopen(os.dup(0), "rb", buffering=0)
    poll = selectors.DefaultSelector()
    poll.register(one.fd, selectors.EVENT_READ, (one, other))
    poll.register(other.fd, selectors.EVENT_READ, (other, one))
    poll.register(orders, selectors.EVENT_READ, None)
    print("ready", flush=True)
    while True:
        due = [end.coming[0][0] for end in (one, other) if end.coming]
        for key, _ in poll.select(max(0.0, min(due) - time.monotonic()) if due else None):
            if key.data is None:
                words = orders.readline().decode().split()
                if not words:
                    return  # whoever started us is gone
                how = {"delay": 0.0, "jitter": 0.0, "loss": 0.0}
                how.update(zip(words[::2], map(float, words[1::2])))
                continue
            into, out = key.data
            for frame in frames(into):
                out.take(frame, how)
        one.deliver()
        other.deliver()


main()
