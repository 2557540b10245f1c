// Verifies a request with the Node reference library, then prints the signature that the library itself makes for it.
//
// The argument is a JSON file with `secret`, `body` and `headers`. Ends with an error when the library refuses.

const { readFileSync } = require("node:fs");
const { Webhook } = require("standardwebhooks");

const { secret, body, headers } = JSON.parse(readFileSync(process.argv[2], "utf8"));
const webhook = new Webhook(secret);
webhook.verify(body, headers);
const sent = new Date(Number(headers["webhook-timestamp"]) * 1000);
console.log(webhook.sign(headers["webhook-id"], sent, body));
