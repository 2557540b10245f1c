"""Verifies a request with the Python reference library, then prints the signature that the library itself makes for it.

The argument is a JSON file with `secret`, `body` and `headers`. Ends with an error when the library refuses.
"""

import json
import sys
from datetime import datetime, timezone

from standardwebhooks import Webhook

with open(sys.argv[1], encoding="utf-8") as file:
    request = json.load(file)
headers, body = request["headers"], request["body"]
webhook = Webhook(request["secret"])
webhook.verify(body, headers)
sent = datetime.fromtimestamp(int(headers["webhook-timestamp"]), timezone.utc)
print(webhook.sign(headers["webhook-id"], sent, body))
