// A receiver of Framehook's callbacks. Needs Node.js 18.11 and nothing else.
//
//     FRAMEHOOK_CALLBACK_KEY=... node receiver.mjs --listen 127.0.0.1:9000
//
// Answers 200 only to callbacks whose two signatures are right, and prints one line for each event.

import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";
import { parseArgs } from "node:util";

// The largest callback stays under 6 KiB.
const BODY_BYTES_MAX = 64 * 1024;
// How far the header's timestamp may lie from our clock, as in the Standard Webhooks libraries.
const TOLERANCE_SECS = 300;
// A signature in the body is good for ten minutes after sending; a `t` further ahead was made for later use.
const LIFE_SECS = 600;

class Refused extends Error {
  constructor(message, status = 401) {
    super(message);
    this.status = status;
  }
}

/** The secret of the header signature: a key `whsec_...` is base64 of it, any other key is the secret itself. */
function webhookSecret(key) {
  return key.startsWith("whsec_") ? Buffer.from(key.slice("whsec_".length), "base64") : Buffer.from(key);
}

/** Compares without telling by its time where the difference is. timingSafeEqual throws when the lengths differ. */
function isEqual(a, b) {
  const [left, right] = [Buffer.from(a), Buffer.from(b)];
  return left.length === right.length && timingSafeEqual(left, right);
}

/** Standard Webhooks: HMAC-SHA256 over id, timestamp and body. Returns the id. */
function checkHeaders(secret, headers, body, now) {
  const { "webhook-id": id = "", "webhook-timestamp": timestamp = "", "webhook-signature": signatures = "" } = headers;
  if (!/^\d{1,15}$/.test(timestamp) || Math.abs(now - Number(timestamp)) > TOLERANCE_SECS) {
    throw new Refused("webhook-timestamp is missing or more than five minutes off");
  }
  const expected = "v1," + createHmac("sha256", secret).update(`${id}.${timestamp}.`).update(body).digest("base64");
  // There are several signatures while the sender's key is being changed.
  if (!signatures.split(" ").some((candidate) => isEqual(expected, candidate))) {
    throw new Refused("no signature in webhook-signature fits the body");
  }
  return id;
}

/** CSS: `sign` is MD5 of key and `t`. Returns the event. */
function checkBody(key, body, now) {
  let event;
  try {
    event = JSON.parse(body);
  } catch {
    throw new Refused("the body is not JSON");
  }
  const expires = Number(event?.t);
  if (!Number.isSafeInteger(expires) || typeof event.sign !== "string") {
    throw new Refused("the body is not an event with t and sign");
  }
  if (now > expires || expires > now + LIFE_SECS + TOLERANCE_SECS) {
    throw new Refused("t has passed or lies too far ahead");
  }
  const expected = createHash("md5").update(`${key}${expires}`).digest("hex");
  if (!isEqual(expected, event.sign.toLowerCase())) {
    throw new Refused("sign is not MD5(key + t)");
  }
  return event;
}

/**
 * The last ids that were dealt with. Keep them in your database instead, in the transaction that holds what you did: then
 * a callback that comes again after a crash is known too.
 */
class Recent {
  static IDS_MAX = 10_000;
  #ids = new Set(); // In the order of insertion.

  has(id) {
    return this.#ids.has(id);
  }

  add(id) {
    this.#ids.add(id);
    if (this.#ids.size > Recent.IDS_MAX) {
      this.#ids.delete(this.#ids.values().next().value);
    }
  }
}

function describe(event) {
  const stream = `${event.app}/${event.appname}/${event.stream_id}`;
  switch (event.event_type) {
    case 200:
      return `snapshot ${stream} ${event.width}x${event.height} ${event.pic_full_url}`;
    case 1:
      return `push-began ${stream}`;
    case 0:
      return `push-ended ${stream} after ${event.push_duration} ms`;
    default:
      return `event-${event.event_type} ${stream}`;
  }
}

/** The body's bytes as they came: one that was parsed and written again has another signature. */
async function read(request) {
  const chunks = [];
  let bytes = 0;
  for await (const chunk of request) {
    bytes += chunk.length;
    if (bytes > BODY_BYTES_MAX) {
      throw new Refused("the body is longer than a callback can be", 413);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

const { values: options } = parseArgs({ options: { listen: { type: "string", default: "127.0.0.1:9000" } } });
// From the environment, since a command line can be read by every user of the machine.
const key = process.env.FRAMEHOOK_CALLBACK_KEY;
if (!key) {
  console.error("FRAMEHOOK_CALLBACK_KEY is not set");
  process.exit(1);
}
const secret = webhookSecret(key);
const recent = new Recent();

async function receive(request) {
  if (request.method !== "POST") {
    throw new Refused("callbacks are POST requests", 405);
  }
  const body = await read(request);
  const now = Math.floor(Date.now() / 1000);
  const id = checkHeaders(secret, request.headers, body, now);
  const event = checkBody(key, body, now);
  if (!recent.has(id)) {
    console.log(describe(event));
    recent.add(id);
  }
}

const server = createServer((request, response) => {
  const answer = (status, message) => {
    // What is left of a refused request is not read.
    const connection = status === 200 ? {} : { connection: "close" };
    response.writeHead(status, { "content-type": "application/json", ...connection });
    response.end(JSON.stringify({ code: status === 200 ? 0 : 1, message }));
  };
  receive(request).then(
    () => answer(200, ""),
    (error) => {
      console.error(`refused: ${error.message}`);
      answer(error instanceof Refused ? error.status : 400, error.message);
    },
  );
});
// How long a sender may take for one request.
server.requestTimeout = 10_000;

const [, host, port] = options.listen.match(/^(.*):(\d+)$/) ?? [];
server.listen(Number(port), host, () => {
  const { address, port } = server.address();
  console.log(`listening on http://${address}:${port}/`);
});
