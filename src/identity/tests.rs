//! Certificates as authorities make them, as they should not, and as nobody should.

use std::sync::LazyLock;

use proptest::prelude::*;
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue, KeyPair, SanType,
    SerialNumber, date_time_ymd,
};

use super::*;

static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate().unwrap());

const DEFAULT: [IdSource; 3] = [IdSource::SanUri, IdSource::SanDns, IdSource::Cn];
const SAN: [u64; 4] = [2, 5, 29, 17];
/// The same type as `DnType::CommonName`, by another name: rcgen keeps one value of each name.
const SECOND_CN: [u64; 4] = [2, 5, 4, 3];

fn params(cn: Option<&str>, names: Vec<SanType>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if let Some(cn) = cn {
        params.distinguished_name.push(DnType::CommonName, cn);
    }
    params.subject_alt_names = names;
    params.serial_number = Some(SerialNumber::from_slice(&[0x7a, 1]));
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2030, 1, 1);
    params
}

fn der(params: CertificateParams) -> Vec<u8> {
    params.self_signed(&*KEY).unwrap().der().to_vec()
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

fn id_of(der: &[u8]) -> Result<String, IdentityError> {
    let device = Identity::new(DEFAULT.into()).device(der)?;
    Ok(device.id.as_str().into())
}

fn id_in(cn: Option<&str>, names: Vec<SanType>) -> Result<String, IdentityError> {
    id_of(&der(params(cn, names)))
}

/// A certificate with a common name whose subject alternative name is `content`, whatever that is.
fn with_san(content: Vec<u8>) -> Vec<u8> {
    let mut params = params(Some("cn"), Vec::new());
    params.custom_extensions = vec![CustomExtension::from_oid_content(&SAN, content)];
    der(params)
}

fn with_second_cn(value: DnValue) -> Vec<u8> {
    let mut params = params(Some("first"), Vec::new());
    params
        .distinguished_name
        .push(DnType::CustomDnType(SECOND_CN.into()), value);
    der(params)
}

#[test]
fn the_first_source_that_is_present_names_the_device() {
    let names = || vec![dns("plc-7.plant.example"), uri("spiffe://plant/plc-7")];
    assert_eq!(id_in(Some("cn"), names()).unwrap(), "spiffe://plant/plc-7");
    assert_eq!(
        id_in(Some("cn"), vec![dns("plc-7.plant.example")]).unwrap(),
        "plc-7.plant.example"
    );
    let address = SanType::IpAddress([192, 0, 2, 1].into());
    let mail = SanType::Rfc822Name("plc@example.com".try_into().unwrap());
    assert_eq!(id_in(Some("plc-7"), vec![address, mail]).unwrap(), "plc-7");
    assert_eq!(id_in(None, Vec::new()), Err(IdentityError::Missing));
    let cn_first = Identity::new(vec![IdSource::Cn, IdSource::SanUri])
        .device(&der(params(Some("cn"), names())));
    assert_eq!(cn_first.unwrap().id.as_str(), "cn");
}

#[test]
fn a_source_with_a_bad_entry_is_not_passed_over() {
    for bad in ["", "*", "a b", "a\0b", "a\u{7f}"] {
        assert_eq!(
            id_in(Some("cn"), vec![uri(bad), dns("dns")]),
            Err(IdentityError::NotAnId),
            "uri {bad:?}"
        );
        assert_eq!(
            id_in(Some("cn"), vec![dns(bad)]),
            Err(IdentityError::NotAnId),
            "dns {bad:?}"
        );
        assert_eq!(
            id_in(Some(bad), Vec::new()),
            Err(IdentityError::NotAnId),
            "cn {bad:?}"
        );
    }
    assert_eq!(
        id_in(Some("cn"), vec![dns("*.plant.example")]),
        Err(IdentityError::NotAnId)
    );
    assert_eq!(
        id_in(Some("plc-\u{0430}"), Vec::new()),
        Err(IdentityError::NotAnId)
    );
}

#[test]
fn two_candidates_are_refused_even_when_they_are_equal() {
    assert_eq!(
        id_in(None, vec![uri("a"), uri("a")]),
        Err(IdentityError::Ambiguous)
    );
    assert_eq!(
        id_in(None, vec![dns("a"), dns("")]),
        Err(IdentityError::Ambiguous)
    );
    assert_eq!(
        id_of(&with_second_cn("second".into())),
        Err(IdentityError::Ambiguous)
    );
    assert_eq!(
        id_in(None, vec![dns("a"), uri("b"), dns("c")]).unwrap(),
        "b",
        "the first source decides alone"
    );
}

#[test]
fn an_id_has_1_to_128_characters() {
    let longest = "x".repeat(128);
    assert_eq!(id_in(Some(&longest), Vec::new()).unwrap(), longest);
    assert_eq!(
        id_in(Some(&"x".repeat(129)), Vec::new()),
        Err(IdentityError::NotAnId)
    );
}

#[test]
fn a_common_name_of_two_bytes_a_character_is_no_id() {
    let mut bmp = params(None, Vec::new());
    bmp.distinguished_name.push(
        DnType::CommonName,
        DnValue::BmpString("plc".try_into().unwrap()),
    );
    assert_eq!(id_of(&der(bmp)), Err(IdentityError::NotAnId));
    let mut printable = params(None, Vec::new());
    printable.distinguished_name.push(
        DnType::CommonName,
        DnValue::PrintableString("plc".try_into().unwrap()),
    );
    assert_eq!(id_of(&der(printable)).unwrap(), "plc");
}

#[test]
fn other_parts_of_the_subject_do_not_matter() {
    let mut params = params(Some("plc"), Vec::new());
    params
        .distinguished_name
        .push(DnType::OrganizationName, "W\u{fc}rth * & Co");
    assert_eq!(id_of(&der(params)).unwrap(), "plc");
}

#[test]
fn malformed_alternative_names_are_refused() {
    let good = [0x30, 3, 0x86, 1, b'u'];
    assert_eq!(id_of(&with_san(good.into())).unwrap(), "u");
    let not_utf8 = vec![0x30, 3, 0x86, 1, 0xff];
    let not_ascii = vec![0x30, 4, 0x86, 2, 0xc3, 0xa4];
    for san in [not_utf8, not_ascii] {
        assert_eq!(
            id_of(&with_san(san.clone())),
            Err(IdentityError::NotAnId),
            "{san:x?}"
        );
    }
    let trailing = [&good[..], &[0]].concat();
    let cut = vec![0x30, 3, 0x86, 2, b'u'];
    let indefinite = vec![0x30, 0x80, 0x86, 1, b'u', 0, 0];
    let universal = vec![0x30, 3, 0x16, 1, b'u'];
    for san in [trailing, cut, indefinite, universal, Vec::new()] {
        assert_eq!(
            id_of(&with_san(san.clone())),
            Err(IdentityError::Malformed),
            "{san:x?}"
        );
    }
    assert_eq!(
        id_of(&with_san(vec![0x30, 0])).unwrap(),
        "cn",
        "no names at all"
    );
}

#[test]
fn a_second_alternative_name_extension_is_refused() {
    let mut params = params(Some("cn"), vec![uri("a")]);
    params.custom_extensions = vec![CustomExtension::from_oid_content(
        &SAN,
        vec![0x30, 3, 0x86, 1, b'b'],
    )];
    assert_eq!(id_of(&der(params)), Err(IdentityError::Malformed));
}

#[test]
fn the_fingerprint_is_the_sha_256_of_the_whole_certificate() {
    let identity = Identity::new(vec![IdSource::Fingerprint]);
    let der = der(params(None, Vec::new()));
    let id = identity.device(&der).unwrap().id;
    let expected = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der);
    assert_eq!(
        id.as_str(),
        expected
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    );
    // FIPS 180-2, appendix B.1.
    let abc = fingerprint_id(b"abc");
    assert_eq!(
        abc.as_str(),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}

#[test]
fn a_device_carries_its_serial_its_issuer_and_its_dates() {
    let der = der(params(Some("plc"), Vec::new()));
    let nobody = Bundle::new([], |_, _| false);
    let [link] = &links([&der[..]], &nobody).unwrap()[..] else {
        panic!("one certificate, one link")
    };
    assert_eq!(&*link.serial, [0x7a, 1]);
    assert!(link.issuer.ends_with(b"plc") && link.issuer.starts_with(&[0x30]));
    let device = Identity::new(DEFAULT.into()).device(&der).unwrap();
    assert_eq!(device.not_before, Timestamp(1_577_836_800_000));
    assert_eq!(device.not_after, Timestamp(1_893_456_000_000));
}

#[test]
fn a_device_is_told_of_its_end_when_that_is_near() {
    const DAY: u64 = 86_400_000;
    let identity =
        Identity::new(DEFAULT.into()).with_expiry_notice(Duration::from_millis(30 * DAY));
    let device = identity
        .device(&der(params(Some("plc"), Vec::new())))
        .unwrap();
    let end = device.not_after.0;
    assert_eq!(device.expiry_notice(Timestamp(end - 30 * DAY - 1)), None);
    let notice = device.expiry_notice(Timestamp(end - 30 * DAY)).unwrap();
    assert_eq!(notice, "Tue, 01 Jan 2030 00:00:00 GMT");
}

#[test]
fn validity_includes_its_first_and_its_last_second() {
    let device = Identity::new(DEFAULT.into())
        .device(&der(params(Some("plc"), Vec::new())))
        .unwrap();
    let valid = |millis| device.is_valid_at(Timestamp(millis));
    assert!(!valid(1_577_836_799_999) && valid(1_577_836_800_000));
    assert!(valid(1_893_456_000_999) && !valid(1_893_456_001_000));
}

#[test]
fn dates_before_1970_are_no_overflow() {
    let mut params = params(Some("plc"), Vec::new());
    (params.not_before, params.not_after) =
        (date_time_ymd(1955, 1, 1), date_time_ymd(9999, 12, 31));
    let device = Identity::new(DEFAULT.into()).device(&der(params)).unwrap();
    assert_eq!(device.not_before, Timestamp(0));
    assert!(device.is_valid_at(Timestamp(1_893_456_001_000)));
}

#[test]
fn errors_never_repeat_the_certificate() {
    let secret = "se cret";
    let error = id_in(Some(secret), Vec::new()).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("cret"));
}

static REALISTIC: LazyLock<Vec<u8>> = LazyLock::new(|| {
    der(params(
        Some("plc-7"),
        vec![dns("plc-7.example"), uri("spiffe://plant/plc-7")],
    ))
});

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(id_of(&bytes).is_err());
    }

    #[test]
    fn a_damaged_certificate_never_panics(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut der = REALISTIC.clone();
        for (index, byte) in damage {
            let at = index.index(der.len());
            der[at] = byte;
        }
        if let Some(cut) = cut {
            der.truncate(cut.index(der.len()));
        }
        for source in [IdSource::SanUri, IdSource::SanDns, IdSource::Cn, IdSource::Fingerprint] {
            let _ = Identity::new(vec![source]).device(&der);
        }
    }

    #[test]
    fn any_alternative_names_give_an_id_or_an_error(content in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(id) = id_of(&with_san(content)) {
            prop_assert!(DeviceId::parse(&id).is_some());
        }
    }
}
