"""Every put that a store has taken, in order, told at GET /.puts: bucket, key, size and SHA-256 of what arrived, and its tags."""

import hashlib
import json
import threading


class Puts:
    def __init__(self):
        self.taken = []
        self.lock = threading.Lock()

    def note(self, bucket, key, body, tags):
        """`tags` as the header has them, or None."""
        with self.lock:
            self.taken.append([bucket, key, len(body), hashlib.sha256(body).hexdigest(), tags])

    def told(self):
        with self.lock:
            return json.dumps(self.taken).encode()
