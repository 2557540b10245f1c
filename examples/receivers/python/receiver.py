#!/usr/bin/env python3
"""A receiver of Framehook's callbacks. Needs Python 3.9 and nothing else.

    FRAMEHOOK_CALLBACK_KEY=... python3 receiver.py --listen 127.0.0.1:9000

Answers 200 only to callbacks whose two signatures are right, and prints one line for each event.
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import re
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

# The largest callback stays under 6 KiB.
BODY_BYTES_MAX = 64 * 1024
# How far the header's timestamp may lie from our clock, as in the Standard Webhooks libraries.
TOLERANCE_SECS = 300
# A signature in the body is good for ten minutes after sending; a `t` further ahead was made for later use.
LIFE_SECS = 600
# How long a sender may be silent in the middle of a request.
SILENCE_SECS = 10


class Refused(Exception):
    """The request is not a genuine callback."""


def whole_number(text: str) -> int:
    """int() also takes "1_000", " 1 " and digits without end."""
    if not re.fullmatch("[0-9]{1,15}", text):
        raise ValueError(f"not a whole number: {text[:20]!r}")
    return int(text)


def webhook_secret(key: str) -> bytes:
    """The secret of the header signature: a key `whsec_...` is base64 of it, any other key is the secret itself."""
    if key.startswith("whsec_"):
        return base64.b64decode(key[len("whsec_"):], validate=True)
    return key.encode()


def check_headers(secret: bytes, headers, body: bytes, now: int) -> str:
    """Standard Webhooks: HMAC-SHA256 over id, timestamp and body. Returns the id."""
    message_id = headers.get("webhook-id", "")
    timestamp = headers.get("webhook-timestamp", "")
    try:
        age = now - whole_number(timestamp)
    except ValueError as error:
        raise Refused("webhook-timestamp is missing or no number") from error
    if abs(age) > TOLERANCE_SECS:
        raise Refused("webhook-timestamp is more than five minutes off")
    signed = b".".join([message_id.encode(), timestamp.encode(), body])
    expected = "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
    # There are several signatures while the sender's key is being changed.
    candidates = headers.get("webhook-signature", "").split(" ")
    if not any(hmac.compare_digest(expected.encode(), candidate.encode()) for candidate in candidates):
        raise Refused("no signature in webhook-signature fits the body")
    return message_id


def check_body(key: str, body: bytes, now: int) -> dict:
    """CSS: `sign` is MD5 of key and `t`. Returns the event."""
    try:
        event = json.loads(body)
        expires = whole_number(str(event["t"]))
        sign = str(event["sign"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Refused("the body is not an event with t and sign") from error
    if now > expires or expires > now + LIFE_SECS + TOLERANCE_SECS:
        raise Refused("t has passed or lies too far ahead")
    expected = hashlib.md5(f"{key}{expires}".encode()).hexdigest()
    if not hmac.compare_digest(expected.encode(), sign.lower().encode()):
        raise Refused("sign is not MD5(key + t)")
    return event


class Recent:
    """The last ids that were dealt with. Keep them in your database instead, in the transaction that holds what you did:
    then a callback that comes again after a crash is known too."""

    IDS_MAX = 10_000

    def __init__(self):
        self.ids = {}  # A dict keeps the order of insertion; a set does not.

    def __contains__(self, message_id: str) -> bool:
        return message_id in self.ids

    def add(self, message_id: str) -> None:
        self.ids[message_id] = None
        if len(self.ids) > self.IDS_MAX:
            del self.ids[next(iter(self.ids))]


def describe(event: dict) -> str:
    stream = f"{event.get('app')}/{event.get('appname')}/{event.get('stream_id')}"
    kind = event.get("event_type")
    if kind == 200:
        return f"snapshot {stream} {event.get('width')}x{event.get('height')} {event.get('pic_full_url')}"
    if kind == 1:
        return f"push-began {stream}"
    if kind == 0:
        return f"push-ended {stream} after {event.get('push_duration')} ms"
    return f"event-{kind} {stream}"


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = SILENCE_SECS
    # Set by main.
    key: str
    secret: bytes
    recent = Recent()
    lock = Lock()

    def do_POST(self):
        try:
            length = whole_number(self.headers.get("content-length", ""))
        except ValueError:
            return self.answer(411, "content-length is missing")
        if length > BODY_BYTES_MAX:
            return self.answer(413, "the body is longer than a callback can be")
        # The bytes as they came: a body that was parsed and written again has another signature.
        body = self.rfile.read(length)
        now = int(time.time())
        try:
            message_id = check_headers(self.secret, self.headers, body, now)
            event = check_body(self.key, body, now)
        except Refused as why:
            print(f"refused: {why}", file=sys.stderr, flush=True)
            return self.answer(401, str(why))
        with self.lock:
            if message_id not in self.recent:
                print(describe(event), flush=True)
                self.recent.add(message_id)
        self.answer(200, "")

    def answer(self, status: int, message: str) -> None:
        body = json.dumps({"code": 0 if status == 200 else 1, "message": message}).encode()
        self.close_connection = status != 200  # What is left of the request is not read.
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass  # One line for each event, not for each request.


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", default="127.0.0.1:9000", metavar="ADDR", help="port 0 takes a free one")
    host, _, port = parser.parse_args().listen.rpartition(":")
    # From the environment, since a command line can be read by every user of the machine.
    Receiver.key = os.environ.get("FRAMEHOOK_CALLBACK_KEY", "")
    if not Receiver.key:
        sys.exit("FRAMEHOOK_CALLBACK_KEY is not set")
    Receiver.secret = webhook_secret(Receiver.key)
    server = ThreadingHTTPServer((host, int(port)), Receiver)
    print("listening on http://%s:%d/" % server.server_address, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
