"""Reads objects back with the vendor's own SDK: read.py KIND PORT ID SECRET BUCKET KEY...

Prints a list: for each key its bytes in base64 and what the store says of it, or null where there is no such object.
"""

import base64
import json
import sys
import urllib.error
import urllib.request
import xml.etree.ElementTree as ElementTree

# In place of a key: the names of the bucket's lifecycle rules.
LIFECYCLE = "?lifecycle"

kind, port, key_id, secret, bucket, *keys = sys.argv[1:]


def from_cos():
    from qcloud_cos import CosConfig, CosS3Client
    from qcloud_cos.cos_exception import CosServiceError

    # The SDK goes where names lead; as its proxy the server gets every one of them.
    proxies = {"http": f"http://127.0.0.1:{port}"}
    config = CosConfig(Region="ap-guangzhou", SecretId=key_id, SecretKey=secret, Scheme="http", Proxies=proxies)
    client = CosS3Client(config)
    for key in keys:
        if key == LIFECYCLE:
            rules = client.get_bucket_lifecycle(Bucket=bucket)["Rule"]
            yield {"body": base64.b64encode(json.dumps([rule["ID"] for rule in rules]).encode()).decode(), "facts": {}}
            continue
        try:
            found = client.get_object(Bucket=bucket, Key=key)
            body = found.pop("Body").get_raw_stream().read()
            yield {"body": base64.b64encode(body).decode(), "facts": {name.lower(): value for name, value in found.items()}}
        except CosServiceError as error:
            if error.get_error_code() != "NoSuchKey":
                raise
            yield None


def from_s3():
    import boto3
    from botocore.config import Config

    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
        region_name="us-east-1",
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )
    # This server judges presigned URLs, so the SDK shall make them.

    for key in keys:
        if key == LIFECYCLE:
            url = client.generate_presigned_url("get_bucket_lifecycle_configuration", Params={"Bucket": bucket})
            with urllib.request.urlopen(url) as found:
                ids = [rule.text for rule in ElementTree.parse(found).iter() if rule.tag.endswith("ID")]
            yield {"body": base64.b64encode(json.dumps(ids).encode()).decode(), "facts": {}}
            continue
        url = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key})
        try:
            with urllib.request.urlopen(url) as found:
                facts = {name.lower(): value for name, value in found.headers.items()}
                body = base64.b64encode(found.read()).decode()
            acl = client.generate_presigned_url("get_object_acl", Params={"Bucket": bucket, "Key": key})
            with urllib.request.urlopen(acl) as found:
                # S3 keeps what the header asked for as a list of who may do what.
                facts["x-amz-acl"] = "public-read" if b"/groups/global/AllUsers" in found.read() else "private"
            yield {"body": body, "facts": facts}
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            yield None


print(json.dumps(list({"cos": from_cos, "s3": from_s3}[kind]())))
