"""What a store does wrong when a test says so: GET /.fault/WHAT, once for each time that it shall happen.

WHAT is a status, or `damage` for a body that is not what was sent. `always-STATUS` answers every put so from then on, until
`none` takes back whatever was ordered.
"""

import threading


class Faults:
    def __init__(self, clock_ahead):
        # Seconds by which this server's clock is ahead of the machine's.
        self.clock_ahead = clock_ahead
        self.next = []
        self.always = None
        self.lock = threading.Lock()

    def note(self, target):
        """Whether the request is a test's order, which is then kept."""
        if not target.startswith("/.fault/"):
            return False
        what = target.removeprefix("/.fault/")
        with self.lock:
            if what == "none":
                self.next, self.always = [], None
            elif what.startswith("always-"):
                self.always = what.removeprefix("always-")
            else:
                self.next.append(what)
        return True

    def strike(self, method, body):
        """The status to answer with, or 0, and the body as it is taken to have arrived."""
        with self.lock:
            what = self.next.pop(0) if self.next else self.always if method == "PUT" else None
        if what is None:
            return 0, body
        if what == "damage":
            return 0, body[:-1] + bytes([body[-1] ^ 1])
        return int(what), body
