"""A COS server for tests: objects in memory, errors as COS documents them, and signatures judged by the vendor's SDK.

Each request is signed again by the SDK's own code, at the time that the request names, with the secret of whoever claims
to have made it, and the two signatures are compared.

Prints the port it listens on, then serves until it is killed. A bucket is the first label of the host.
"""

import argparse
import base64
import hashlib
import hmac
import threading
import time
import xml.etree.ElementTree as ElementTree
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

from faults import Faults
from puts import Puts
from qcloud_cos import CosConfig, cos_auth

FIELDS = ["q-sign-algorithm", "q-ak", "q-sign-time", "q-key-time", "q-header-list", "q-url-param-list", "q-signature"]
SDK = threading.Lock()


class Refused(Exception):
    def __init__(self, status, code, message):
        self.status, self.code, self.message = status, code, message


def signature_by_sdk(key_id, secret, method, path, parameters, headers, start, end):
    """What the vendor's SDK would sign this with, had it been asked when the window began."""
    config = CosConfig(Region="ap-guangzhou", SecretId=key_id, SecretKey=secret)
    request = SimpleNamespace(method=method, headers=headers, url="http://none/")
    with SDK:
        clock, cos_auth.time = cos_auth.time, SimpleNamespace(time=lambda: start + 60)
        try:
            auth = cos_auth.CosS3Auth(config, key=path, params=parameters, expire=end - start - 60, sign_host="host" in headers)
            auth(request)
        finally:
            cos_auth.time = clock
    return request.headers["Authorization"].rsplit("=", 1)[1]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", headers=()):
        self.send_response_only(status)
        self.send_header("Date", formatdate(time.time() + self.server.faults.clock_ahead, usegmt=True))
        self.send_header("Server", "tencent-cos")
        self.send_header("x-cos-request-id", "test-request")
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", len(body))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, refused):
        error = f"<Error><Code>{refused.code}</Code><Message>{escape(refused.message)}</Message><Resource>test</Resource><RequestId>test-request</RequestId><TraceId>test-trace</TraceId></Error>"
        body = f"<?xml version='1.0' encoding='utf-8' ?>\n{error}".encode()
        self.answer(refused.status, body, [("Content-Type", "application/xml")])

    def handle_one(self):
        url = urlsplit(self.path)
        path = unquote(url.path)
        query = parse_qsl(url.query, keep_blank_values=True)
        if self.server.faults.note(self.path):
            return self.answer(204)
        if path.startswith("/.has/"):
            _, _, bucket, key = path.split("/", 3)
            return self.answer(200 if key in self.server.buckets[bucket]["objects"] else 404)
        if path.startswith("/.make/"):
            self.server.buckets[path.removeprefix("/.make/")] = {"objects": {}, "lifecycle": None}
            return self.answer(204)
        if path == "/.puts":
            return self.answer(200, self.server.puts.told())
        try:
            length = self.headers.get("Content-Length")
            if length is None and self.command == "PUT":
                raise Refused(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
            body = self.rfile.read(int(length or 0))
            if len(body) != int(length or 0):
                raise Refused(400, "IncompleteBody", "fewer bytes than announced")
            status, body = self.server.faults.strike(self.command, body)
            if status:
                raise Refused(status, "SlowDown" if status == 503 else "InternalError", "as the test wants it")
            self.judge(path, query, body)
            self.serve(path, dict(query), body)
        except Refused as refused:
            self.refuse(refused)

    do_GET = do_HEAD = do_PUT = do_DELETE = handle_one

    def judge(self, path, query, body):
        given = dict(query)
        in_url = "q-signature" in given
        if in_url:
            proof, token = given, given.get("x-cos-security-token")
        else:
            proof = dict(pair.split("=", 1) for pair in self.headers.get("Authorization", "").split("&") if "=" in pair)
            token = self.headers.get("x-cos-security-token")
        if any(field not in proof for field in FIELDS):
            raise Refused(403, "AccessDenied", "Access Denied.")
        if proof["q-ak"] not in self.server.accounts:
            raise Refused(403, "InvalidAccessKeyId", "The Access Key Id you provided does not exist in our records.")
        secret, own_token = self.server.accounts[proof["q-ak"]]
        start, end = (int(part) for part in proof["q-sign-time"].split(";"))
        names = [name for name in proof["q-header-list"].split(";") if name]
        headers = {name: self.headers.get(name, "") for name in names}
        listed = [unquote(name) for name in proof["q-url-param-list"].split(";") if name]
        parameters = {name: value for name, value in query if name in listed}
        # A client behind a proxy or on an odd port may have left the port out.
        spellings = [headers]
        if "host" in headers:
            spellings.append({**headers, "host": headers["host"].rsplit(":", 1)[0]})
        made = [
            signature_by_sdk(proof["q-ak"], secret, self.command, path, parameters, spelling, start, end)
            for spelling in spellings
        ]
        if not any(hmac.compare_digest(one, proof["q-signature"]) for one in made):
            raise Refused(403, "SignatureDoesNotMatch", "The Signature you specified is invalid.")
        if self.command == "PUT" and "host" not in headers:
            raise Refused(403, "SignatureDoesNotMatch", "these tests want the host signed")
        if token != own_token:
            raise Refused(403, "InvalidAccessKeyId", "the token is not the key's")
        if own_token == "expired":
            raise Refused(400, "ExpiredToken", "Your token has expired")
        now = time.time() + self.server.faults.clock_ahead
        if start > now + 900:
            raise Refused(403, "RequestTimeTooSkewed", "The difference between the request time and the server's time is too large.")
        if not start <= now <= end:
            raise Refused(403, "AccessDenied", "Request has expired")
        sum_sent = self.headers.get("Content-MD5")
        if sum_sent and base64.b64encode(hashlib.md5(body).digest()).decode() != sum_sent:
            raise Refused(400, "BadDigest", "The Content-MD5 you specified did not match what we received.")

    def serve(self, path, query, body):
        name = self.headers["Host"].split(".")[0]
        bucket = self.server.buckets.get(name)
        if bucket is None:
            raise Refused(404, "NoSuchBucket", "The specified bucket does not exist.")
        key = path[1:]
        if not key and "lifecycle" in query:
            return self.lifecycle(bucket, body)
        if not key:
            return self.answer(200)
        if self.command == "PUT":
            if not self.headers.get("Content-Type"):
                raise Refused(400, "InvalidArgument", "Content-Type is required")
            headers = {name.lower(): value for name, value in self.headers.items()}
            kept = {name: value for name, value in headers.items() if name.startswith("x-cos-") or name == "cache-control"}
            kept.pop("x-cos-security-token", None)
            bucket["objects"][key] = (body, self.headers["Content-Type"], kept)
            self.server.puts.note(name, key, body, headers.get("x-cos-tagging"))
            return self.answer(200, headers=[("ETag", f'"{hashlib.md5(body).hexdigest()}"')])
        if self.command == "DELETE":
            bucket["objects"].pop(key, None)
            return self.answer(204)
        if key not in bucket["objects"]:
            raise Refused(404, "NoSuchKey", "The specified key does not exist.")
        data, content_type, kept = bucket["objects"][key]
        self.answer(200, data, [("Content-Type", content_type), *kept.items()])

    def lifecycle(self, bucket, body):
        if self.command == "GET":
            if bucket["lifecycle"] is None:
                raise Refused(404, "NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist.")
            return self.answer(200, bucket["lifecycle"], [("Content-Type", "application/xml")])
        try:
            ElementTree.fromstring(body)
        except ElementTree.ParseError as error:
            raise Refused(400, "MalformedXML", str(error))
        bucket["lifecycle"] = body
        self.answer(200)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--account", action="append", default=[], help="ID:SECRET[:TOKEN]")
    parser.add_argument("--bucket", action="append", default=[])
    parser.add_argument("--clock-ahead", type=int, default=0)
    arguments = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.faults = Faults(arguments.clock_ahead)
    server.puts = Puts()
    server.accounts = {}
    for account in arguments.account:
        key_id, secret, *token = account.split(":")
        server.accounts[key_id] = (secret, token[0] if token else None)
    server.buckets = {bucket: {"objects": {}, "lifecycle": None} for bucket in arguments.bucket}
    print(server.server_port, flush=True)
    server.serve_forever()


main()
