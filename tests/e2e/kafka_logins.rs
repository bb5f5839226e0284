//! Logins to Kafka while secrets change: a password in a file, tokens of a provider, tokens of Amazon MSK.

use std::fs;
use std::path::Path;
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::brokers;
use crate::harness::{Ask, Client, PATIENCE, Protocol, Setup, eventually};
use crate::idp::Idp;
use crate::kafka::{Kafka, PASSWORD, Properties, variables};
use crate::sasl;

/// As editors and Kubernetes do it: there is no moment without a file.
fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).expect("a file");
    fs::rename(new, file).expect("it is replaced");
}

fn gateway_to(kafka: &Kafka, listener: &Properties, topic: &str) -> Setup {
    brokers::wait(kafka.create_topic(topic, 3, &[]));
    Setup::new()
        .set("FOREBAY_SINK", "kafka")
        .set("FOREBAY_STREAMS", format!("telemetry={topic}"))
        .set_all(variables(listener))
        .without_limits()
}

/// The password is changed at the broker, then in the file, and then every connection breaks: the gateway is back with the
/// new one, by itself, and has what it said was safe.
#[test]
fn a_password_that_changes_in_its_file_logs_in_and_nothing_is_lost() {
    const BAD: &str = "forebay_tls_reload_failures_total{what=\"password\"}";
    let mut kafka = Kafka::start();
    let mut listener = kafka.sasl("SCRAM-SHA-512");
    listener.retain(|(name, _)| name != "sasl.password");
    let setup = gateway_to(&kafka, &listener, "password");
    let file = setup.path("kafka.secret");
    fs::write(&file, format!("{PASSWORD}\n")).expect("a file");
    let gateway = setup
        .set("FOREBAY_KAFKA_SASL_PASSWORD_FILE", file.display())
        .start();
    let client = Client::open(Protocol::H2, &gateway, &gateway.device("plc-1"));
    let mut safe = Vec::new();
    let post = |safe: &mut Vec<String>| {
        let body = format!("reading-{}", safe.len());
        let is_safe = client.send(&Ask::post(body.clone())).status == 204;
        if is_safe {
            safe.push(body);
        }
        is_safe
    };
    assert!(post(&mut safe));

    replace(&file, "");
    eventually("a file that is of no use is told", || {
        gateway.metric(BAD) == 1.0
    });
    assert!(gateway.log().contains("is empty"), "{}", gateway.log());
    assert!(post(&mut safe), "the last good password stays in force");

    kafka.change_password("another-password");
    replace(&file, "another-password");
    eventually("the password is read again", || {
        gateway.log().contains("the password was read again")
    });
    assert!(post(&mut safe), "connections that are there stay");
    kafka.kill();
    kafka.start_again();
    eventually("readings are safe again", || post(&mut safe));
    for _ in 0..20 {
        assert!(post(&mut safe));
    }
    let arrived = brokers::bodies_and_ids_at(&kafka.plain(), "password");
    for body in &safe {
        assert!(
            arrived.iter().any(|(arrived, _)| arrived == body),
            "{body} is lost"
        );
    }
    assert_eq!(gateway.metric(BAD), 1.0);
    for secret in [PASSWORD, "another-password"] {
        assert!(!gateway.log().contains(secret));
    }
}

fn oidc(kafka: &Kafka, idp: &Idp) -> Properties {
    let mut listener = kafka.tokens();
    for (name, value) in [
        ("sasl.mechanisms", "OAUTHBEARER"),
        ("sasl.oauthbearer.method", "oidc"),
        ("sasl.oauthbearer.client.id", "plant-7"),
        ("sasl.oauthbearer.client.secret", "hunter2"),
        ("sasl.oauthbearer.scope", "write"),
        ("sasl.oauthbearer.token.endpoint.url", &idp.url()),
        ("https.ca.location", &kafka.file("ca.pem")),
    ] {
        crate::kafka::set(&mut listener, name, value);
    }
    listener
}

/// Tokens of ten seconds, in sessions that end with them: only a gateway that fetches the next one in time goes on.
#[test]
fn tokens_of_a_provider_log_in_and_are_renewed_before_they_run_out() {
    let kafka = Kafka::start();
    let idp = Idp::start(&kafka);
    idp.set_lifetime(10);
    let gateway = gateway_to(&kafka, &oidc(&kafka, &idp), "tokens").start();
    let client = Client::open(Protocol::H2, &gateway, &gateway.device("plc-1"));
    let mut sent = 0;
    eventually("a third token", || {
        assert_eq!(client.send(&Ask::post(format!("{sent}"))).status, 204);
        sent += 1;
        idp.asked().len() >= 3
    });
    let arrived = brokers::bodies_and_ids_at(&kafka.plain(), "tokens");
    assert_eq!(arrived.len(), sent);
    let asked = &idp.asked()[0];
    assert!(asked.starts_with("POST /token HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("Basic cGxhbnQtNzpodW50ZXIy"), "{asked}");
    assert!(
        asked.ends_with("\r\n\r\ngrant_type=client_credentials&scope=write"),
        "{asked}"
    );
}

#[test]
fn a_provider_that_gives_no_token_is_told_in_readyz_until_it_does() {
    let kafka = Kafka::shared();
    let idp = Idp::start(kafka);
    let refusal = r#"{"error":"invalid_client","error_description":"plant-7 is unknown"}"#;
    idp.refuse(Some((401, refusal)));
    let gateway = gateway_to(kafka, &oidc(kafka, &idp), "no-token").start_unready();
    eventually("the provider's words", || {
        let (status, body) = gateway.admin("/readyz");
        status == 503 && body.contains("invalid_client: plant-7 is unknown")
    });
    idp.refuse(None);
    gateway.wait_until_ready();
    let client = Client::open(Protocol::H2, &gateway, &gateway.device("plc-1"));
    assert_eq!(client.send(&Ask::post("x")).status, 204);
    assert!(!gateway.log().contains("hunter2"));
}

/// Amazon's brokers are not to be had: the test plays one as far as the login goes. That the token is the one of Amazon's own
/// signer is shown beside the code.
#[test]
fn a_token_for_amazon_msk_goes_out_as_oauthbearer_over_tls() {
    let kafka = Kafka::shared();
    let (address, logins) = sasl::start(kafka);
    let mut gateway = Setup::new()
        .set("FOREBAY_SINK", "kafka")
        .set("FOREBAY_KAFKA_BOOTSTRAP_SERVERS", address)
        .set("FOREBAY_KAFKA_SASL_MECHANISMS", "AWS_MSK_IAM")
        .set("FOREBAY_KAFKA_SSL_CA_LOCATION", kafka.file("ca.pem"))
        .set("AWS_REGION", "eu-central-1")
        .set("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        .set("AWS_SECRET_ACCESS_KEY", "hunter2")
        .start_unready();
    let login = logins.recv_timeout(PATIENCE).expect("somebody logs in");
    assert_eq!(login.mechanism, "OAUTHBEARER");
    let data = String::from_utf8(login.data).expect("text");
    let token = data.strip_prefix("n,,\x01auth=Bearer ").expect("RFC 7628");
    let token = token.strip_suffix("\x01\x01").expect("RFC 7628");
    let url = URL_SAFE_NO_PAD.decode(token).expect("base64");
    let url = String::from_utf8(url).expect("a URL");
    let begin =
        "https://kafka.eu-central-1.amazonaws.com/?Action=kafka-cluster%3AConnect&X-Amz-Algorithm=";
    assert!(url.starts_with(begin), "{url}");
    assert!(url.contains("X-Amz-Credential=AKIDEXAMPLE%2F"), "{url}");
    assert!(url.contains("&User-Agent=forebay%2F"), "{url}");
    gateway.terminate();
    gateway.exit_code();
    assert!(!gateway.log().contains("hunter2"));
}

/// A device that keeps on sending while the provider is away is served by the token that is there.
#[test]
fn a_provider_that_is_away_costs_nothing_while_the_token_lives() {
    let kafka = Kafka::shared();
    let idp = Idp::start(kafka);
    idp.set_lifetime(20);
    let gateway = gateway_to(kafka, &oidc(kafka, &idp), "idp-away").start();
    let client = Client::open(Protocol::H2, &gateway, &gateway.device("plc-1"));
    idp.refuse(Some((503, "<html>")));
    eventually("the next token is asked for in vain", || {
        assert_eq!(client.send(&Ask::post("x")).status, 204);
        thread::yield_now();
        idp.asked().len() >= 2
    });
    assert_eq!(client.send(&Ask::post("x")).status, 204);
}
