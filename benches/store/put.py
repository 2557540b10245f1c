"""Puts one picture under many keys with a vendor's SDK: put.py KIND PORT BUCKET PICTURE PUTS PER_SEC AT_A_TIME.

One after another at that rate; with 0 all at once, so many at a time. A key starts with the moment at which its put was due,
in microseconds of the wall clock.

Prints the CPU time in seconds that the puts took, and what made them.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

kind, port, bucket, picture, *numbers = sys.argv[1:]
puts, per_sec, at_a_time = (int(number) for number in numbers)
KEY_ID, KEY = "AKIDofTheBenchmark", "keyOfTheBenchmark"


def s3():
    import boto3
    from botocore.config import Config

    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id=KEY_ID,
        aws_secret_access_key=KEY,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, max_pool_connections=at_a_time),
    )

    def put(key):
        with open(picture, "rb") as body:
            client.put_object(Bucket=bucket, Key=key, Body=body, ContentType="image/jpeg")

    return f"boto3 {boto3.__version__}", put


def cos():
    from importlib.metadata import version

    from qcloud_cos import CosConfig, CosS3Client

    config = CosConfig(
        Region="ap-guangzhou",
        SecretId=KEY_ID,
        SecretKey=KEY,
        Scheme="http",
        Domain=f"127.0.0.1:{port}",
        PoolConnections=at_a_time,
        PoolMaxSize=at_a_time,
    )
    client = CosS3Client(config)

    def put(key):
        with open(picture, "rb") as body:
            # The others send a sum of the bytes as well.
            client.put_object(Bucket=bucket, Key=key, Body=body, ContentType="image/jpeg", EnableMD5=True)

    return f"cos-python-sdk-v5 {version('cos-python-sdk-v5')}", put


name, put = {"s3": s3, "cos": cos}[kind]()
# Whatever is loaded when first needed, and the first connection, belong to no put.
put("first.jpg")
cpu, began = time.process_time(), time.time()
if per_sec:
    for number in range(puts):
        due = began + number / per_sec
        time.sleep(max(0, due - time.time()))
        put(f"{int(due * 1e6)}-{number}.jpg")
else:
    with ThreadPoolExecutor(at_a_time) as threads:
        list(threads.map(put, [f"{int(began * 1e6)}-{number}.jpg" for number in range(puts)]))
print(json.dumps({"cpu_secs": time.process_time() - cpu, "name": name}))
