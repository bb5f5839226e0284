// Sends messages by Azure's own HTTP transport for devices, with an X.509 certificate, and says what becomes of each:
//
//     NODE_PATH=target/tools/iot-hub/node_modules node tests/clients/iot_hub.js PORT CA CERT KEY DEVICE OTHER_DEVICE
//
// The transport asks port 443 of its host. An agent, which it takes as an option, connects to another one.
"use strict";

const fs = require("fs");
const https = require("https");
const tls = require("tls");
const { Client, Message } = require("azure-iot-device");
const { Http } = require("azure-iot-device-http");

const [port, ca, cert, key, device, other] = process.argv.slice(2);
const files = { ca: fs.readFileSync(ca), cert: fs.readFileSync(cert, "utf8"), key: fs.readFileSync(key, "utf8") };

const agent = new https.Agent();
agent.createConnection = (options) => tls.connect({ ...options, ...files, port: Number(port) });

const open = (id) => {
  const client = Client.fromConnectionString(`HostName=localhost;DeviceId=${id};x509=true`, Http);
  // It takes effect at once; this transport does not say when it has.
  client.setOptions({ cert: files.cert, key: files.key, http: { agent } });
  return client;
};

const send = async (client, message) => {
  try {
    const sent = await client.sendEvent(message);
    console.log(JSON.stringify({ sent: sent.constructor.name }));
  } catch (error) {
    const response = error.response || {};
    console.log(JSON.stringify({ error: error.name, status: response.statusCode, message: error.message }));
  }
};

(async () => {
  const full = new Message(JSON.stringify({ temperature: 21.5 }));
  full.messageId = "message-1";
  full.correlationId = "correlation-1";
  full.contentType = "application/json";
  full.contentEncoding = "utf-8";
  full.properties.add("line", "7");
  const client = open(device);
  await send(client, full);
  await send(client, new Message("plain"));
  await send(open(other), new Message("not mine"));
})();
