// The Node peer of the `fanout` figures: the server broadcast of the documentation of `ws`, fed by a Redis channel.
//
//     node broadcast.js PORT REDIS_PORT CHANNEL
//
// Each message goes to every client as one text frame, from one buffer, with the defaults of `ws` (no compression). The
// reader knows of RESP what SUBSCRIBE answers, arrays of bulk strings and one integer, and nothing else.
"use strict";

const net = require("node:net");
const { WebSocket, WebSocketServer } = require("ws");

const [port, redisPort, channel] = process.argv.slice(2);

const redis = net.connect(Number(redisPort), "127.0.0.1", () => redis.write(`SUBSCRIBE ${channel}\r\n`));
redis.on("close", () => process.exit(1));

const server = new WebSocketServer({ host: "127.0.0.1", port: Number(port) });

function broadcast(message) {
  for (const client of server.clients) {
    if (client.readyState === WebSocket.OPEN) client.send(message, { binary: false });
  }
}

let rest = Buffer.alloc(0);
redis.on("data", (data) => {
  rest = rest.length ? Buffer.concat([rest, data]) : data;
  for (;;) {
    const reply = readReply(rest);
    if (reply === null) return;
    rest = rest.subarray(reply.end);
    if (reply.words[0].equals(MESSAGE)) broadcast(reply.words[2]);
  }
});

const MESSAGE = Buffer.from("message");

// The three words of the first reply and where it ends, or null while it is not all there.
function readReply(data) {
  let at = data.indexOf("\r\n") + 2;
  if (at < 2) return null;
  const words = [];
  for (let left = Number(data.toString("latin1", 1, at - 2)); left > 0; left--) {
    const end = data.indexOf("\r\n", at);
    if (end < 0) return null;
    const size = Number(data.toString("latin1", at + 1, end));
    if (data[at] === 0x3a /* : */) {
      words.push(data.subarray(at, end));
      at = end + 2;
      continue;
    }
    if (data.length < end + 2 + size + 2) return null;
    words.push(data.subarray(end + 2, end + 2 + size));
    at = end + 2 + size + 2;
  }
  return { words, end: at };
}
