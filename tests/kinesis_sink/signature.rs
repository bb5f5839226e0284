//! The signature of a call, which is over the body that is sent.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;

use super::*;

/// A request as it came.
struct Sent {
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Sent {
    fn of(request: &[u8]) -> Self {
        let ends = |window: &[u8]| window == b"\r\n\r\n";
        let end = request.windows(4).position(ends).unwrap();
        let head = std::str::from_utf8(&request[..end]).unwrap();
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        };
        Self {
            headers: head.lines().skip(1).map(header).collect(),
            body: request[end + 4..].to_vec(),
        }
    }

    fn header(&self, name: &str) -> &str {
        let named = self.headers.iter().find(|(header, _)| header == name);
        &named.unwrap().1
    }

    fn signed_at(&self) -> SystemTime {
        let time = strtime::parse("%Y%m%dT%H%M%SZ", self.header("x-amz-date")).unwrap();
        let time = time.to_datetime().unwrap();
        time.to_zoned(TimeZone::UTC).unwrap().timestamp().into()
    }

    /// Signs the same headers and body, as Amazon's own signer does.
    fn signature(&self) -> String {
        let identity = Credentials::new("x", "x", None, None, "test").into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region("eu-central-1")
            .name("kinesis")
            .time(self.signed_at())
            .settings(SigningSettings::default())
            .build()
            .unwrap();
        let signed = parameter(self.header("authorization"), "SignedHeaders=");
        let names = signed.split(';').filter(|name| *name != "x-amz-date");
        let headers = names.map(|name| (name, self.header(name)));
        let url = format!("http://{}/", self.header("host"));
        let body = SignableBody::Bytes(&self.body);
        let request = SignableRequest::new("POST", url, headers, body).unwrap();
        sign(request, &params.into()).unwrap().signature().into()
    }
}

fn parameter<'a>(authorization: &'a str, name: &str) -> &'a str {
    let (_, value) = authorization.split_once(name).unwrap();
    value.split(',').next().unwrap()
}

#[tokio::test]
async fn a_call_is_signed_with_the_body_that_it_has() {
    let server = Server::start([]).await;
    let sink = sink(settings(server.address), Duration::from_secs(10)).await;
    let records = [record("device-1", "a reading"), record("device-2", "\"x\"")];
    let outcomes = sink.deliver(STREAM, &records).await;
    assert_eq!(outcomes, Outcomes::DELIVERED);
    let sent = Sent::of(&server.last_request());
    let body = String::from_utf8_lossy(&sent.body);
    assert!(body.starts_with(r#"{"StreamName":"readings""#), "{body}");
    let told = parameter(sent.header("authorization"), "Signature=");
    assert_eq!(told, sent.signature());
}
