// An HTTP/2 receiver behind TLS. The argument is a JSON file with `host`, `cert`, `key` and, for callbacks that are to be
// checked with it, `publicKey` (32 bytes in base64). Prints the port it listens on, then a line of JSON for each request.

import { createPublicKey, verify } from "node:crypto";
import { readFileSync } from "node:fs";
import { createSecureServer } from "node:http2";

const { host, cert, key, publicKey } = JSON.parse(readFileSync(process.argv[2], "utf8"));

/** Whether one of the `v1a` signatures is right; null where there is no key to tell. */
function isGenuine(headers, body) {
  if (!publicKey) return null;
  const x = Buffer.from(publicKey, "base64").toString("base64url");
  const ed25519 = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });
  const signed = Buffer.concat([Buffer.from(`${headers["webhook-id"]}.${headers["webhook-timestamp"]}.`), body]);
  const signatures = headers["webhook-signature"].split(" ").filter((one) => one.startsWith("v1a,"));
  return signatures.some((one) => verify(null, signed, ed25519, Buffer.from(one.slice(4), "base64")));
}

const server = createSecureServer({ cert, key });
server.on("stream", (stream, headers) => {
  const pieces = [];
  stream.on("data", (piece) => pieces.push(piece));
  stream.on("end", () => {
    const body = Buffer.concat(pieces);
    console.log(JSON.stringify({ headers, body: body.toString(), genuine: isGenuine(headers, body) }));
    stream.respond({ ":status": 200, "content-type": "application/json" });
    stream.end('{"code":0}');
  });
});
server.listen(0, host, () => console.log(JSON.stringify({ port: server.address().port })));
