//! Tokens of an OpenID Connect provider, by librdkafka's properties.
//!
//! One POST to the token endpoint: a client's id and secret (`client_credentials`), or an assertion
//! that something else keeps in a file (`urn:ietf:params:oauth:grant-type:jwt-bearer`), as
//! Kubernetes does with a workload's identity. The answer's `access_token` is the token. A JWT says
//! itself whose it is (`sub`) and when it runs out (`exp`); for any other that is the client, and
//! the answer's `expires_in`.
//!
//! Limits: an answer of [`ANSWER_BYTES_MAX`]; no redirects, which would carry the secret elsewhere.

use std::error::Error as _;
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, RequestBuilder, Response, Url};
use serde_json::Value;

use super::super::SinkError;
use super::super::native::Token;
use super::super::properties::{Properties, Property, fault};
use crate::record::Timestamp;
use crate::sink::cause::innermost;

const ID: &str = "sasl.oauthbearer.client.id";
const SECRET: &str = "sasl.oauthbearer.client.secret";
const ENDPOINT: &str = "sasl.oauthbearer.token.endpoint.url";
const SCOPE: &str = "sasl.oauthbearer.scope";
const EXTENSIONS: &str = "sasl.oauthbearer.extensions";
const GRANT: &str = "sasl.oauthbearer.grant.type";
const ASSERTION_FILE: &str = "sasl.oauthbearer.assertion.file";
const AUTHORITY_FILE: &str = "https.ca.location";
const AUTHORITY_PEM: &str = "https.ca.pem";

const CLIENT_CREDENTIALS: &str = "client_credentials";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// Most characters of a provider's complaint that are passed on.
const COMPLAINT_CHARS_MAX: usize = 300;

/// A token endpoint, and the fields of a request to it.
pub(crate) struct Oidc {
    http: Client,
    endpoint: Url,
    grant: Grant,
    scope: Option<String>,
    extensions: Vec<(CString, CString)>,
}

/// The credential that the provider gives a token for.
enum Grant {
    Client {
        id: String,
        secret: String,
    },
    /// Read for each token.
    AssertionFile(PathBuf),
}

impl Oidc {
    /// Takes its own properties out. An unknown one is a fault, since it would be without effect.
    pub(super) fn take(properties: &mut Properties) -> Result<Self, SinkError> {
        let endpoint = required(properties, ENDPOINT)?;
        let url = Url::parse(&endpoint.value)
            .map_err(|error| endpoint.fault(&format!("is no URL: {error}")))?;
        let oidc = Self {
            http: http_client(properties)?,
            endpoint: url,
            grant: Grant::take(properties)?,
            scope: properties.take(SCOPE).map(|scope| scope.value),
            extensions: take_extensions(properties)?,
        };
        let unknown = properties
            .iter()
            .find(|property| property.name.starts_with("sasl.oauthbearer."));
        match unknown {
            Some(property) => Err(property.fault("is not supported; unset it")),
            None => Ok(oidc),
        }
    }

    pub(super) async fn fetch(&self) -> Result<Token, String> {
        let answer = self
            .request()
            .await?
            .send()
            .await
            .map_err(|error| self.failed(&error))?;
        let status = answer.status();
        let body = read(answer).await.map_err(|error| self.failed(&error))?;
        if !status.is_success() {
            return Err(format!("{}: {status}{}", self.endpoint, complaint(&body)));
        }
        let granted = Granted::read(&body, self.grant.client())
            .map_err(|why| format!("{}: {why}", self.endpoint))?;
        granted.into_token(&self.extensions)
    }

    async fn request(&self) -> Result<RequestBuilder, String> {
        let request = self.http.post(self.endpoint.clone());
        let (request, mut fields) = match &self.grant {
            Grant::Client { id, secret } => (
                request.basic_auth(id, Some(secret)),
                vec![("grant_type", CLIENT_CREDENTIALS.to_owned())],
            ),
            Grant::AssertionFile(file) => (
                request,
                vec![
                    ("grant_type", JWT_BEARER.to_owned()),
                    ("assertion", read_assertion(file).await?),
                ],
            ),
        };
        fields.extend(self.scope.clone().map(|scope| ("scope", scope)));
        Ok(request
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form(&fields)))
    }

    /// Says on one line why there is no answer: the client's own words say only that there is none.
    fn failed(&self, error: &reqwest::Error) -> String {
        let reason = error.source().map(innermost);
        let reason = reason.unwrap_or_else(|| "no answer".into());
        format!("{}: {reason}", self.endpoint)
    }
}

impl Grant {
    fn take(properties: &mut Properties) -> Result<Self, SinkError> {
        match properties.take(GRANT) {
            None => Self::take_client(properties),
            Some(grant) if grant.is_one_of(&[CLIENT_CREDENTIALS]) => Self::take_client(properties),
            Some(grant) if grant.is_one_of(&[JWT_BEARER]) => {
                let file = required(properties, ASSERTION_FILE)?;
                properties.take(ID);
                properties.take(SECRET);
                Ok(Self::AssertionFile(file.value.into()))
            }
            Some(grant) => {
                Err(grant.fault(&format!("must be {CLIENT_CREDENTIALS} or {JWT_BEARER}")))
            }
        }
    }

    fn take_client(properties: &mut Properties) -> Result<Self, SinkError> {
        Ok(Self::Client {
            id: required(properties, ID)?.value,
            secret: required(properties, SECRET)?.value,
        })
    }

    /// Returns the principal of a token that does not name one.
    fn client(&self) -> &str {
        match self {
            Self::Client { id, .. } => id,
            Self::AssertionFile(_) => "forebay",
        }
    }
}

/// The provider's grant.
#[derive(Debug, PartialEq, Eq)]
struct Granted {
    token: String,
    principal: String,
    expires_at: Timestamp,
}

impl Granted {
    fn read(body: &[u8], client: &str) -> Result<Self, String> {
        let answer: Value =
            serde_json::from_slice(body).map_err(|_| "the answer is not JSON".to_owned())?;
        let token = answer["access_token"]
            .as_str()
            .ok_or("the answer has no access_token")?;
        let claims = claims(token).unwrap_or_default();
        let expires_at = expiry_of(&claims)
            .or_else(|| expiry_of_answer(&answer))
            .ok_or("neither the token nor the answer says when it runs out")?;
        Ok(Self {
            token: token.to_owned(),
            principal: claims["sub"].as_str().unwrap_or(client).to_owned(),
            expires_at,
        })
    }

    fn into_token(self, extensions: &[(CString, CString)]) -> Result<Token, String> {
        let nul = |_| "the token holds a NUL".to_owned();
        Ok(Token {
            value: CString::new(self.token).map_err(nul)?,
            principal: CString::new(self.principal).map_err(nul)?,
            expires_at: self.expires_at,
            extensions: extensions.to_vec(),
        })
    }
}

/// Reads the claims of a JWT. Its signature is not verified, which is for the brokers to do.
fn claims(token: &str) -> Option<Value> {
    let payload = token.split('.').nth(1)?;
    let json = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&json).ok()
}

fn expiry_of(claims: &Value) -> Option<Timestamp> {
    let seconds = claims["exp"].as_f64()?;
    Some(Timestamp((seconds * 1000.0) as u64))
}

fn expiry_of_answer(answer: &Value) -> Option<Timestamp> {
    let seconds = answer["expires_in"].as_u64()?;
    Some(Timestamp(Timestamp::now().0 + seconds.saturating_mul(1000)))
}

/// Reads the answer, or as much of it as an answer may have.
async fn read(mut answer: Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while body.len() < ANSWER_BYTES_MAX
        && let Some(chunk) = answer.chunk().await?
    {
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

async fn read_assertion(file: &Path) -> Result<String, String> {
    let path = file.to_path_buf();
    let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await;
    let text = read.map_err(|error| error.to_string())?;
    let text = text.map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(text.trim().to_owned())
}

/// Returns the complaint of an OAuth provider that refuses a request: `error`, and
/// `error_description` if there is one.
fn complaint(body: &[u8]) -> String {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let words = ["error", "error_description"].map(|name| answer[name].as_str());
    let told: Vec<&str> = words.into_iter().flatten().collect();
    if told.is_empty() {
        return String::new();
    }
    let told = told.join(": ").replace(char::is_control, " ");
    format!(
        ": {}",
        told.chars().take(COMPLAINT_CHARS_MAX).collect::<String>()
    )
}

/// Spells fields as a form does.
fn form(fields: &[(&str, String)]) -> String {
    let url = Url::parse_with_params("form:", fields).expect("a URL without a host");
    url.query().unwrap_or_default().to_owned()
}

fn http_client(properties: &mut Properties) -> Result<Client, SinkError> {
    let mut builder = Client::builder()
        .user_agent(concat!("forebay/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(Policy::none());
    let authority = take_authority(properties)?;
    if let Some((property, pem)) = &authority {
        let certificates = Certificate::from_pem_bundle(pem);
        let certificates = certificates.map_err(|_| no_certificates(property))?;
        builder = builder.tls_certs_only(certificates);
    }
    builder.build().map_err(|error| match &authority {
        Some((property, _)) => no_certificates(property),
        None => fault(ENDPOINT, &format!("TLS cannot be set up: {error}")),
    })
}

/// Takes the authority that the provider's certificate is verified with, if it is not among the
/// system's.
fn take_authority(properties: &mut Properties) -> Result<Option<(Property, Vec<u8>)>, SinkError> {
    if let Some(pem) = properties.take(AUTHORITY_PEM) {
        let bytes = pem.value.clone().into_bytes();
        return Ok(Some((pem, bytes)));
    }
    match properties.take(AUTHORITY_FILE) {
        Some(file) if file.value != "probe" => {
            let bytes = std::fs::read(&file.value)
                .map_err(|error| file.fault(&format!("{}: {error}", file.value)))?;
            Ok(Some((file, bytes)))
        }
        _ => Ok(None),
    }
}

fn no_certificates(property: &Property) -> SinkError {
    property.fault("has no certificates in PEM")
}

/// Reads `name=value,name=value`; a name is letters (RFC 7628).
fn take_extensions(properties: &mut Properties) -> Result<Vec<(CString, CString)>, SinkError> {
    let Some(property) = properties.take(EXTENSIONS) else {
        return Ok(Vec::new());
    };
    let mut extensions = Vec::new();
    for pair in property.value.split(',') {
        let fault = || property.fault("must be name=value,…, names of letters");
        let (name, value) = pair.split_once('=').ok_or_else(fault)?;
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphabetic());
        if !is_name {
            return Err(fault());
        }
        let texts = (CString::new(name), CString::new(value));
        let (Ok(name), Ok(value)) = texts else {
            return Err(fault());
        };
        extensions.push((name, value));
    }
    Ok(extensions)
}

fn required(properties: &mut Properties, name: &str) -> Result<Property, SinkError> {
    let property = properties.take(name);
    property
        .filter(|property| !property.value.is_empty())
        .ok_or_else(|| fault(name, "must be set to log in by OIDC"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn jwt(claims: &Value) -> String {
        let payload = URL_SAFE_NO_PAD.encode(claims.to_string());
        format!("eyJhbGciOiJub25lIn0.{payload}.c2lnbmVk")
    }

    fn granted(answer: &Value) -> Result<Granted, String> {
        Granted::read(answer.to_string().as_bytes(), "plant-7")
    }

    #[test]
    fn a_jwt_says_itself_whose_it_is_and_when_it_runs_out() {
        let token = jwt(&json!({"sub": "gateway", "exp": 1_900_000_000}));
        let answer = json!({"access_token": token, "expires_in": 60});
        let expected = Granted {
            token,
            principal: "gateway".into(),
            expires_at: Timestamp(1_900_000_000_000),
        };
        assert_eq!(granted(&answer), Ok(expected));
    }

    #[test]
    fn an_opaque_token_is_the_clients_and_lives_as_long_as_the_answer_says() {
        let before = Timestamp::now().0;
        let found = granted(&json!({"access_token": "opaque", "expires_in": 60})).unwrap();
        assert_eq!((&*found.token, &*found.principal), ("opaque", "plant-7"));
        let left = found.expires_at.0 - before;
        assert!((60_000..120_000).contains(&left), "{left}");
        for answer in [
            json!({"access_token": "opaque"}),
            json!({"expires_in": 60}),
            json!({"access_token": 7, "expires_in": 60}),
            json!([]),
        ] {
            assert!(granted(&answer).is_err(), "{answer}");
        }
        assert!(Granted::read(b"<html>", "plant-7").is_err());
    }

    #[test]
    fn a_refusal_is_told_in_the_providers_words_and_no_more_of_them_than_fit() {
        let refused = br#"{"error":"invalid_client","error_description":"no such\nclient"}"#;
        assert_eq!(complaint(refused), ": invalid_client: no such client");
        assert_eq!(complaint(b"<html>"), "");
        let long = json!({"error": "x".repeat(10_000)}).to_string();
        assert_eq!(complaint(long.as_bytes()).len(), COMPLAINT_CHARS_MAX + 2);
    }

    #[test]
    fn a_form_is_spelled_as_forms_are() {
        let fields = [
            ("grant_type", JWT_BEARER.to_owned()),
            ("scope", "a b&c".to_owned()),
        ];
        assert_eq!(
            form(&fields),
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&scope=a+b%26c"
        );
    }
}
