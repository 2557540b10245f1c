"""Carries out actions with the vendor's SDK: an order in JSON on each line of the input, an answer on each of the output."""

import json
import sys
from contextlib import ExitStack
from unittest import mock

from tencentcloud.common.credential import Credential
from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile
from tencentcloud.live.v20180801 import live_client, models


def carry_out(order):
    http = HttpProfile(protocol="http", endpoint=order["endpoint"], reqMethod=order["method"], reqTimeout=30)
    profile = ClientProfile(signMethod=order["sign"], httpProfile=http)
    credential = Credential(order["secret_id"], order["secret_key"])
    client = live_client.LiveClient(credential, "ap-guangzhou", profile)
    action, params = order["action"], order["params"]
    if not hasattr(client, action):
        # Not in the mainland's SDK: the way that the SDK offers for any action.
        return client.call_json(action, params)["Response"]
    request = getattr(models, action + "Request")()
    request.from_json_string(json.dumps(params))
    return json.loads(getattr(client, action)(request).to_json_string())


for line in sys.stdin:
    order = json.loads(line)
    try:
        # The SDK stays as it is; what it asks of the machine, the time and a random number, can be told.
        with ExitStack() as stack:
            if order["now"] is not None:
                stack.enter_context(mock.patch("time.time", return_value=order["now"]))
            if order["nonce"] is not None:
                stack.enter_context(mock.patch("random.randint", return_value=order["nonce"]))
            answer = {"response": carry_out(order)}
    except TencentCloudSDKException as error:
        answer = {"code": error.get_code(), "message": error.get_message(), "request_id": error.get_request_id()}
    print(json.dumps(answer), flush=True)
