"""An S3 server for tests: moto keeps the objects and knows the errors, botocore judges who asks.

moto answers as AWS does, lifecycle rules, tags, encryption and storage classes included, but believes every presigned
URL. So each request passes AWS's own signing code first: the signature is made again from what arrived, with the secret
of whoever claims to have made it, and compared. Content-MD5 and the age of a request are judged as AWS documents it.

Prints the port it listens on, then serves until it is killed.
"""

import argparse
import base64
import calendar
import hashlib
import hmac
import io
import time
from email.utils import formatdate
from urllib.parse import parse_qsl, quote, urlsplit

from botocore.auth import UNSIGNED_PAYLOAD, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from moto.moto_server.werkzeug_app import create_backend_app
from moto.s3.models import s3_backends
from faults import Faults
from puts import Puts
from werkzeug.serving import WSGIRequestHandler, make_server

SKEW_SECS = 15 * 60


class Refused(Exception):
    def __init__(self, status, code, message):
        self.status, self.code, self.message = status, code, message


class Auth(S3SigV4QueryAuth):
    """botocore's, without the parts that write a request."""

    def string(self, request, scope, timestamp):
        canonical = self.canonical_request(request)
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        return "\n".join(["AWS4-HMAC-SHA256", timestamp, scope, digest])

    def payload(self, request):
        return UNSIGNED_PAYLOAD

    def headers_to_sign(self, request):
        return request.headers


def judge(accounts, environ, body, now):
    # The path and the query as they were sent.
    raw = urlsplit(environ["REQUEST_URI"])
    query = dict(parse_qsl(raw.query, keep_blank_values=True))
    if "X-Amz-Signature" not in query:
        raise Refused(403, "AccessDenied", "Anonymous access is not allowed")
    key_id, date, region, service, terminal = query["X-Amz-Credential"].split("/")
    if key_id not in accounts:
        raise Refused(403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
    secret, token = accounts[key_id]
    if (service, terminal) != ("s3", "aws4_request") or query["X-Amz-Date"][:8] != date:
        raise Refused(400, "AuthorizationQueryParametersError", "The scope is wrong")
    began = calendar.timegm(time.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ"))
    life = int(query["X-Amz-Expires"])
    if not 1 <= life <= 604800:
        raise Refused(400, "AuthorizationQueryParametersError", "X-Amz-Expires must be less than a week (in seconds)")
    headers = {}
    for name in query["X-Amz-SignedHeaders"].split(";"):
        field = "HTTP_" + name.upper().replace("-", "_")
        if name in ("content-type", "content-length"):
            field = field[5:]
        headers[name] = environ.get(field, "")
    sent = [name[5:].lower().replace("_", "-") for name in environ if name.startswith("HTTP_X_AMZ_")]
    if "host" not in headers or any(name not in headers for name in sent):
        raise Refused(403, "AccessDenied", "There were headers present in the request which were not signed")
    unsigned = "&".join(pair for pair in raw.query.split("&") if not pair.startswith("X-Amz-Signature="))
    request = AWSRequest(
        method=environ["REQUEST_METHOD"],
        url=f"http://{headers['host']}{raw.path}?{unsigned}",
        headers=headers,
        data=body,
    )
    auth = Auth(Credentials(key_id, secret, token), "s3", region)
    request.context["timestamp"] = query["X-Amz-Date"]
    string = auth.string(request, f"{date}/{region}/s3/aws4_request", query["X-Amz-Date"])
    if not hmac.compare_digest(auth.signature(string, request), query["X-Amz-Signature"]):
        raise Refused(403, "SignatureDoesNotMatch", "The request signature we calculated does not match")
    if query.get("X-Amz-Security-Token") != token:
        raise Refused(403, "InvalidAccessKeyId", "The token is not the key's")
    if token == "expired":
        raise Refused(400, "ExpiredToken", "The provided token has expired.")
    if began > now + SKEW_SECS:
        raise Refused(403, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.")
    if now > began + life:
        raise Refused(403, "AccessDenied", "Request has expired")
    sum_sent = environ.get("HTTP_CONTENT_MD5")
    if sum_sent and base64.b64encode(hashlib.md5(body).digest()).decode() != sum_sent:
        raise Refused(400, "BadDigest", "The Content-MD5 you specified did not match what we received.")


def named(environ):
    """Bucket and key, wherever the bucket's name stands."""
    path = environ["PATH_INFO"].encode("latin-1").decode().removeprefix("/")
    host, _, domain = environ["HTTP_HOST"].partition(".s3.")
    return (host, path) if domain else tuple(path.partition("/")[::2])


def guarded(app, accounts, faults):
    puts = Puts()

    def application(environ, start_response):
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length)
        if faults.note(environ["REQUEST_URI"]):
            start_response("204 Noted", [("Content-Length", "0")])
            return [b""]
        if environ["PATH_INFO"].startswith("/.has/"):
            _, _, bucket, key = environ["PATH_INFO"].encode("latin-1").decode().split("/", 3)
            found = s3_backends["123456789012"]["aws"].get_object(bucket, key)
            start_response("200 There" if found else "404 Missing", [("Content-Length", "0")])
            return [b""]
        if environ["PATH_INFO"].startswith("/.make/"):
            s3_backends["123456789012"]["aws"].create_bucket(environ["PATH_INFO"].removeprefix("/.make/"), "us-east-1")
            start_response("204 Made", [("Content-Length", "0")])
            return [b""]
        if environ["PATH_INFO"] == "/.puts":
            told = puts.told()
            start_response("200 Told", [("Content-Length", str(len(told)))])
            return [told]
        try:
            status, body = faults.strike(environ["REQUEST_METHOD"], body)
            if status:
                raise Refused(status, "SlowDown" if status == 503 else "InternalError", "as the test wants it")
            if len(body) != length:
                raise Refused(400, "IncompleteBody", "You did not provide the number of bytes you announced")
            judge(accounts, environ, body, time.time() + faults.clock_ahead)
            environ["wsgi.input"] = io.BytesIO(body)
        except Refused as refused:
            text = f"<?xml version='1.0'?><Error><Code>{refused.code}</Code><Message>{refused.message}</Message></Error>"
            start_response(f"{refused.status} Refused", [("Content-Type", "application/xml")])
            return [b"" if environ["REQUEST_METHOD"] == "HEAD" else text.encode()]

        def answer(status, headers, *more):
            bucket, key = named(environ)
            if environ["REQUEST_METHOD"] == "PUT" and key and status.startswith("200"):
                puts.note(bucket, key, body, environ.get("HTTP_X_AMZ_TAGGING"))
            return start_response(status, headers, *more)

        return app(environ, answer)

    return application


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def make_environ(self):
        environ = super().make_environ()
        environ["REQUEST_URI"] = self.path
        return environ

    def date_time_string(self, timestamp=None):
        return formatdate(time.time() + self.server.clock_ahead, usegmt=True)

    def log(self, *_):
        pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--account", action="append", default=[], help="ID:SECRET[:TOKEN]")
    parser.add_argument("--bucket", action="append", default=[])
    parser.add_argument("--clock-ahead", type=int, default=0)
    parser.add_argument("--cert", help="a certificate in PEM: TLS alone is spoken then")
    parser.add_argument("--key")
    arguments = parser.parse_args()
    accounts = {}
    for account in arguments.account:
        key_id, secret, *token = account.split(":")
        accounts[key_id] = (secret, token[0] if token else None)
    app = create_backend_app("s3")
    application = guarded(app, accounts, Faults(arguments.clock_ahead))
    tls = (arguments.cert, arguments.key) if arguments.cert else None
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Handler, ssl_context=tls)
    server.daemon_threads = True
    server.clock_ahead = arguments.clock_ahead
    for bucket in arguments.bucket:
        s3_backends["123456789012"]["aws"].create_bucket(bucket, "us-east-1")
    print(server.server_port, flush=True)
    server.serve_forever()


main()
