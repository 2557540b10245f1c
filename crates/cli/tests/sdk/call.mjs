// Carries out actions with the vendor's SDK for Node.js: an order in JSON on each line of the input, an answer on each of
// the output.

import { createInterface } from "node:readline";
import { createRequire } from "node:module";

// Where the SDK is installed is the first argument: this file lies elsewhere.
const load = createRequire(process.argv[2]);
const { live } = load("tencentcloud-sdk-nodejs/tencentcloud/services/live");

const RealDate = Date;

// The SDK stays as it is; what it asks of the machine, the time, can be told.
function tell(now) {
  globalThis.Date =
    now === null
      ? RealDate
      : class extends RealDate {
          constructor(...given) {
            super(...(given.length ? given : [now * 1000]));
          }
          static now() {
            return now * 1000;
          }
        };
}

async function carryOut(order) {
  const client = new live.v20180801.Client({
    credential: { secretId: order.secret_id, secretKey: order.secret_key },
    region: "ap-guangzhou",
    profile: {
      signMethod: order.sign,
      httpProfile: { protocol: "http://", endpoint: order.endpoint, reqMethod: order.method, reqTimeout: 30 },
    },
  });
  // Not in the mainland's SDK: the way that the SDK offers for any action.
  const call = client[order.action]?.bind(client) ?? ((params) => client.request(order.action, params));
  return call(order.params);
}

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  let answer;
  try {
    tell(order.now);
    answer = { response: await carryOut(order) };
  } catch (error) {
    answer = { code: error.code, message: error.message, request_id: error.requestId };
  } finally {
    tell(null);
  }
  console.log(JSON.stringify(answer));
}
