// An unmodified `ws`, and what a user writes around it: keep the position, come back with it. Frames go to stdout.
import WebSocket from "ws";

const [gateway, coin] = process.argv.slice(2);
const since = {};

function connect() {
  let pause = 500 * Math.random();
  const socket = new WebSocket(`${gateway}/v1/ws`);
  socket.on("open", () => socket.send(JSON.stringify({ op: "subscribe", coins: [coin], since })));
  socket.on("message", (message) => {
    const frame = JSON.parse(message);
    if (frame.type === "quote") since[frame.coin] = `${frame.epoch}-${frame.seq}`;
    if (frame.type === "gap") since[frame.coin] = frame.through;
    if (frame.type === "bye") pause = frame.retry_ms;
    console.log(JSON.stringify(frame));
  });
  socket.on("error", () => {}); // a close follows
  socket.on("close", (code) => {
    console.log(JSON.stringify({ type: "closed", code }));
    setTimeout(connect, pause);
  });
}

connect();
