"""Carries out actions with the vendor's command-line tool: an order in JSON on each line of the input, an answer on each of
the output. The tool ends after each action, as it does for a person."""

import json
import os
import re
import subprocess
import sys
import tempfile

REFUSED = re.compile(r"\[TencentCloudSDKException\] code:(\S+) message:(.*) requestId:(\S+)", re.DOTALL)


def carry_out(order, authority, home):
    tool = os.path.join(os.path.dirname(sys.executable), "tccli")
    command = [tool, "live", order["action"], "--region", "ap-guangzhou", "--endpoint", order["endpoint"]]
    params = os.path.join(home, "params.json")
    with open(params, "w") as file:
        json.dump(order["params"], file)
    command += ["--cli-input-json", "file://" + params]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": home,
        "TENCENTCLOUD_SECRET_ID": order["secret_id"],
        "TENCENTCLOUD_SECRET_KEY": order["secret_key"],
        # See `site/sitecustomize.py`.
        "PYTHONPATH": os.path.join(os.path.dirname(os.path.abspath(__file__)), "site"),
        "AUTHORITY": authority,
    }
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    said = ran.stdout + ran.stderr
    if ran.returncode == 0:
        return {"response": json.loads(ran.stdout)}
    refused = REFUSED.search(said)
    if refused is None:
        raise SystemExit(f"{command}: {said}")
    code, message, request_id = refused.groups()
    return {"code": code, "message": message, "request_id": request_id}


# In a home of its own, it neither reads nor changes the settings of the person who runs the tests.
with tempfile.TemporaryDirectory() as home:
    for line in sys.stdin:
        print(json.dumps(carry_out(json.loads(line), sys.argv[1], home)), flush=True)
