"""Every put that a store has taken, in order, told at GET /.puts: bucket, key, size and SHA-256 of what arrived."""

import hashlib
import json
import threading


class Puts:
    def __init__(self):
        self.taken = []
        self.lock = threading.Lock()

    def note(self, bucket, key, body):
        with self.lock:
            self.taken.append([bucket, key, len(body), hashlib.sha256(body).hexdigest()])

    def told(self):
        with self.lock:
            return json.dumps(self.taken).encode()
