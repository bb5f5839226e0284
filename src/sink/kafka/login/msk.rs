//! Tokens of Amazon MSK: a URL that is signed with the AWS credentials and that the brokers try.
//!
//! The URL asks for `kafka-cluster:Connect` and is signed by query (SigV4); the token is the URL in
//! base64. Order and spelling are those of Amazon's own signers:
//! <https://github.com/aws/aws-msk-iam-sasl-signer-python>. Credentials and region come from the
//! places where every AWS tool looks, and are looked up for each token.

use std::borrow::Cow;
use std::error::Error;
use std::ffi::CString;
use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Url;
use tokio::sync::OnceCell;

use super::super::native::Token;
use crate::record::Timestamp;
use crate::sink::cause::innermost;

/// The URL's `Action`, and the service that it is signed for.
const ACTION: &str = "kafka-cluster:Connect";
const SERVICE: &str = "kafka-cluster";

/// Validity of a URL, as Amazon's signers have it.
const VALIDITY: Duration = Duration::from_secs(900);

const USER_AGENT: &str = concat!("forebay/", env!("CARGO_PKG_VERSION"));

/// The parameters of a signed URL in the order of Amazon's signers.
const SIGNED: [&str; 7] = [
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-SignedHeaders",
    "X-Amz-Security-Token",
    "X-Amz-Signature",
];

/// The AWS settings, once they are known.
#[derive(Default)]
pub(crate) struct Msk(OnceCell<SdkConfig>);

impl Msk {
    pub(super) async fn fetch(&self) -> Result<Token, String> {
        let settings = self
            .0
            .get_or_init(|| aws_config::load_defaults(BehaviorVersion::latest()))
            .await;
        let region = settings
            .region()
            .ok_or("Amazon MSK needs a region: set AWS_REGION, or region in the AWS profile")?;
        let chain = settings
            .credentials_provider()
            .ok_or("there are no AWS credentials")?;
        let credentials = chain
            .provide_credentials()
            .await
            .map_err(|error| format!("no AWS credentials: {}", innermost(&error)))?;
        token(&credentials, region.as_ref(), SystemTime::now())
    }
}

/// Makes the token of these credentials, good from `now` on.
fn token(credentials: &Credentials, region: &str, now: SystemTime) -> Result<Token, String> {
    let value = presigned(credentials, region, now, USER_AGENT)?;
    let credentials_end = credentials.expiry().unwrap_or(now + VALIDITY);
    let expires_at = credentials_end.min(now + VALIDITY);
    let since_epoch = expires_at.duration_since(SystemTime::UNIX_EPOCH);
    let millis = since_epoch.unwrap_or_default().as_millis();
    Ok(Token {
        value: CString::new(value).expect("base64 has no NUL"),
        principal: c"forebay".to_owned(),
        expires_at: Timestamp(u64::try_from(millis).unwrap_or(u64::MAX)),
        extensions: Vec::new(),
    })
}

/// Returns the signed URL in base64. The agent is added behind the signature, as Amazon's signers
/// do.
fn presigned(
    credentials: &Credentials,
    region: &str,
    now: SystemTime,
    agent: &str,
) -> Result<String, String> {
    let failed = |error: &dyn Error| format!("a URL cannot be signed: {error}");
    let endpoint = format!("https://kafka.{region}.amazonaws.com/");
    let parse = |params: &[(&str, &str)]| Url::parse_with_params(&endpoint, params);
    let unsigned = parse(&[("Action", ACTION)]).map_err(|error| failed(&error))?;
    let signature = sign_query(unsigned.as_str(), credentials, region, now);
    let signature = signature.map_err(|error| failed(&*error))?;
    let mut params = vec![("Action", ACTION)];
    for name in SIGNED {
        let found = signature.iter().find(|(found, _)| *found == name);
        params.extend(found.map(|(name, value)| (*name, &**value)));
    }
    debug_assert_eq!(
        params.len(),
        signature.len() + 1,
        "every parameter is known"
    );
    params.push(("User-Agent", agent));
    let signed = parse(&params).map_err(|error| failed(&error))?;
    Ok(URL_SAFE_NO_PAD.encode(signed.as_str()))
}

type Params = Vec<(&'static str, Cow<'static, str>)>;

/// Returns the parameters that sign the URL.
fn sign_query(
    url: &str,
    credentials: &Credentials,
    region: &str,
    now: SystemTime,
) -> Result<Params, Box<dyn Error>> {
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(VALIDITY);
    let identity = credentials.clone().into();
    let signing = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(SERVICE)
        .time(now)
        .settings(settings)
        .build()?;
    let no_headers = std::iter::empty();
    let request = SignableRequest::new("GET", url, no_headers, SignableBody::Bytes(&[]))?;
    let (instructions, _) = sign(request, &signing.into())?.into_parts();
    let (_, params) = instructions.into_parts();
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The output of `tests/clients/msk_token.py`.
    const AMAZONS: [&str; 2] = [
        "aHR0cHM6Ly9rYWZrYS51cy1lYXN0LTEuYW1hem9uYXdzLmNvbS8_QWN0aW9uPWthZmthLWNsdXN0ZXIlM0FDb25uZWN0JlgtQW16LUFsZ29yaXRobT1BV1M0LUhNQUMtU0hBMjU2JlgtQW16LUNyZWRlbnRpYWw9QUtJREVYQU1QTEUlMkYyMDI2MTEzMCUyRnVzLWVhc3QtMSUyRmthZmthLWNsdXN0ZXIlMkZhd3M0X3JlcXVlc3QmWC1BbXotRGF0ZT0yMDI2MTEzMFQxMjM0NTZaJlgtQW16LUV4cGlyZXM9OTAwJlgtQW16LVNpZ25lZEhlYWRlcnM9aG9zdCZYLUFtei1TaWduYXR1cmU9MTViYjgyY2U0MzI5ZTg2Nzg1MWQ2NTU2OTY5NjBmNjBhODU2NGNlNjBmODY5NjA4MTNhMmMyOTE4OTgxYjQxMCZVc2VyLUFnZW50PWF3cy1tc2staWFtLXNhc2wtc2lnbmVyLXB5dGhvbiUyRjEuMC4y",
        "aHR0cHM6Ly9rYWZrYS5ldS1jZW50cmFsLTEuYW1hem9uYXdzLmNvbS8_QWN0aW9uPWthZmthLWNsdXN0ZXIlM0FDb25uZWN0JlgtQW16LUFsZ29yaXRobT1BV1M0LUhNQUMtU0hBMjU2JlgtQW16LUNyZWRlbnRpYWw9QVNJQUVYQU1QTEUlMkYyMDI2MTEzMCUyRmV1LWNlbnRyYWwtMSUyRmthZmthLWNsdXN0ZXIlMkZhd3M0X3JlcXVlc3QmWC1BbXotRGF0ZT0yMDI2MTEzMFQxMjM0NTZaJlgtQW16LUV4cGlyZXM9OTAwJlgtQW16LVNpZ25lZEhlYWRlcnM9aG9zdCZYLUFtei1TZWN1cml0eS1Ub2tlbj1JUW9KYjNKcFoybHVYMlZqRVhBTVBMRSUyRiUyRiUyRiUyRiUyRiUyRiUyRiUyRiUyRiUyRndFYUNYVnolMkJ0b2tlbiUzRCUzRCZYLUFtei1TaWduYXR1cmU9YzIxN2U0MmVmODdmZTkyNGQ0YWY2N2M0NzgyM2VjZWFjMTRlMGM0MjdhOGU3NjNjNjAyMjE2ZGJmM2EzNzkzOCZVc2VyLUFnZW50PWF3cy1tc2staWFtLXNhc2wtc2lnbmVyLXB5dGhvbiUyRjEuMC4y",
    ];
    const AMAZONS_AGENT: &str = "aws-msk-iam-sasl-signer-python/1.0.2";
    const NOW: Duration = Duration::from_secs(1_796_042_096);

    fn cases() -> [(&'static str, Credentials); 2] {
        let credentials = |id, secret, token: Option<&str>| {
            Credentials::new(id, secret, token.map(Into::into), None, "test")
        };
        let long_lived = credentials(
            "AKIDEXAMPLE",
            "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            None,
        );
        let session = credentials(
            "ASIAEXAMPLE",
            "c2VjcmV0/LWtleSs=",
            Some("IQoJb3JpZ2luX2VjEXAMPLE//////////wEaCXVz+token=="),
        );
        [("us-east-1", long_lived), ("eu-central-1", session)]
    }

    #[test]
    fn a_token_is_byte_for_byte_the_one_of_amazons_signer() {
        let now = SystemTime::UNIX_EPOCH + NOW;
        for ((region, credentials), amazons) in cases().iter().zip(AMAZONS) {
            let ours = presigned(credentials, region, now, AMAZONS_AGENT).unwrap();
            assert_eq!(ours, amazons);
        }
    }

    #[test]
    fn a_token_is_good_for_a_quarter_of_an_hour_or_as_long_as_the_credentials() {
        let now = SystemTime::UNIX_EPOCH + NOW;
        let [(region, credentials), _] = cases();
        let whole = token(&credentials, region, now).unwrap();
        assert_eq!(whole.expires_at, Timestamp(1_796_042_996_000));
        let mut ending = credentials;
        *ending.expiry_mut() = Some(now + Duration::from_secs(60));
        let short = token(&ending, region, now).unwrap();
        assert_eq!(short.expires_at, Timestamp(1_796_042_156_000));
    }
}
