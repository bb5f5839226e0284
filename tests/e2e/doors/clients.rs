//! Clients of other platforms that nobody here wrote: curl as AWS documents it, Azure's own transport for devices.

use std::process::Command;

use serde_json::{Value, json};

use super::sdk::script;
use super::{doors, last, trace_id};
use crate::harness::raw::{Raw, block_on, tls};
use crate::harness::{Ask, Client, Gateway, Protocol, Setup, Via};
use crate::tools::tools;

/// The command of <https://docs.aws.amazon.com/iot/latest/developerguide/http.html>, argument by argument. Only the
/// endpoint is this gateway's name, and `--connect-to` leads from the port in the URL to the one that is free. By the
/// name `x-amzn-http-ca` curl cannot ask: it has ALPN for `http/1.1` and `h2` alone.
#[test]
fn the_command_that_aws_documents_publishes() {
    let gateway = doors().set("FOREBAY_TOPICS", "topic=alarms").start();
    let device = gateway.device("plc-1");
    let port = gateway.address.port();
    let output = Command::new("curl")
        .arg("--tlsv1.2")
        .arg("--cacert")
        .arg(gateway.pki.ca())
        .arg("--cert")
        .arg(&device.cert)
        .arg("--key")
        .arg(&device.key)
        .args(["--request", "POST"])
        .args(["--data", "{ \"message\": \"Hello, world\" }"])
        .arg("https://localhost:8443/topics/topic?qos=1")
        .args(["--connect-to", &format!("localhost:8443:127.0.0.1:{port}")])
        .output()
        .expect("curl");
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["message"], "OK", "{output:?}");
    let record = last(&gateway, "alarms");
    assert_eq!(record["record_id"], answer["traceId"]);
    assert_eq!(record["payload"], json!({ "message": "Hello, world" }));
    assert_eq!(record["headers"], json!({ "topic": "topic" }));
}

/// The same by either protocol that curl speaks.
#[test]
fn curl_publishes_as_aws_documents_it() {
    let gateway = doors().start();
    let device = gateway.device("plc-1");
    for protocol in [Protocol::H1, Protocol::H2] {
        let client = Client::open_via(Via::Curl, protocol, &gateway, &device);
        let body = r#"{ "message": "Hello, world" }"#;
        let reply = client.send(&Ask::post(body).to("/topics/alarms/topic?qos=1"));
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(reply.problem()["message"], "OK");
        let record = last(&gateway, "alarms");
        assert_eq!(record["record_id"], *trace_id(&reply));
        assert_eq!(record["payload"], json!({ "message": "Hello, world" }));
    }
}

/// The name that AWS has for HTTP where MQTT shares the port. Without the door nobody speaks it.
#[test]
fn http_is_spoken_by_the_name_that_aws_has_for_it() {
    const REQUEST: &str = "POST /topics/alarms HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nConnection: close\r\n\r\n1";
    let exchange = |gateway: &Gateway| {
        let device = gateway.device("plc-1");
        let tls = tls(gateway, Some(&device), "x-amzn-http-ca");
        block_on(async {
            let mut raw = Raw::open(gateway.address, tls).await?;
            raw.send(REQUEST.as_bytes()).await?;
            std::io::Result::Ok(raw.receive_all().await)
        })
    };
    let answer = exchange(&doors().start()).expect("an answer");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("{\"message\":\"OK\","), "{answer}");
    let error = exchange(&Setup::new().start()).expect_err("no common protocol");
    assert!(
        error.to_string().contains("NoApplicationProtocol"),
        "{error}"
    );
}

/// `azure-iot-device-http` sends a message of each kind by itself; only the port is another than Azure's.
#[test]
fn azures_own_transport_for_devices_sends_its_messages() {
    let gateway = doors().start();
    let device = gateway.device("urn:plant/7");
    let output = Command::new("node")
        .arg(script("iot_hub.js"))
        .arg(gateway.address.port().to_string())
        .args([&gateway.pki.ca(), &device.cert, &device.key])
        .args(["urn:plant/7", "plc-2"])
        .env("NODE_PATH", tools().join("iot-hub/node_modules"))
        .output()
        .expect("node");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    let told: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(told.len(), 3, "{said} {complaint}");
    assert_eq!(told[0], json!({ "sent": "MessageEnqueued" }), "{said}");
    assert_eq!(told[1], json!({ "sent": "MessageEnqueued" }), "{said}");
    assert_eq!(told[2]["status"], 403, "another device's path: {said}");
    let lines = gateway.files("telemetry");
    let record = &lines[0].0;
    assert_eq!(record["record_id"], "message-1");
    assert_eq!(record["content_type"], "application/json");
    assert_eq!(record["payload"], json!({ "temperature": 21.5 }));
    let headers = &record["headers"];
    assert_eq!(headers["iothub-app-line"], "7", "{headers}");
    assert_eq!(headers["iothub-correlationid"], "correlation-1");
    assert_eq!(headers["iothub-contentencoding"], "utf-8");
    assert_eq!(
        headers["iothub-to"],
        "/devices/urn%3Aplant%2F7/messages/events"
    );
    assert_eq!(lines[1].payload(), b"plain");
}
