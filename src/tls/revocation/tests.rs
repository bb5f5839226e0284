//! Chains, lists and authorities: who is revoked, who is not, and of whom nobody knows.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    CrlDistributionPoint, CrlIssuingDistributionPoint, CrlScope, DistinguishedName, DnType, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};

use std::slice::from_ref;

use super::*;
use crate::tls::trust::has_signed;

const NOW: Timestamp = Timestamp(1_800_000_000_000);

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn params(name: &str, serial: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(serial.into());
    params
}

fn issuer_params(name: &str, serial: u64) -> CertificateParams {
    let mut params = params(name, serial);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn root(name: &str) -> Issuer {
    CertifiedIssuer::self_signed(issuer_params(name, 1), KeyPair::generate().unwrap()).unwrap()
}

fn below(issuer: &Issuer, name: &str, serial: u64) -> Issuer {
    CertifiedIssuer::signed_by(
        issuer_params(name, serial),
        KeyPair::generate().unwrap(),
        issuer,
    )
    .unwrap()
}

/// The DER of a device's certificate.
fn device(issuer: &Issuer, serial: u64) -> Vec<u8> {
    params("device", serial)
        .signed_by(&KeyPair::generate().unwrap(), issuer)
        .unwrap()
        .der()
        .to_vec()
}

fn list_params(revoked: &[u64], due_year: i32) -> CertificateRevocationListParams {
    let entry = |serial: &u64| RevokedCertParams {
        serial_number: (*serial).into(),
        revocation_time: date_time_ymd(2024, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(due_year, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.iter().map(entry).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    }
}

fn list(issuer: &Issuer, revoked: &[u64], due_year: i32) -> Vec<u8> {
    list_params(revoked, due_year)
        .signed_by(issuer)
        .unwrap()
        .der()
        .to_vec()
}

/// A strict table of these lists, as if their signatures had been checked.
fn table(authorities: &[&Issuer], lists: &[Vec<u8>]) -> Revocation {
    let authorities: Vec<Authority> = authorities
        .iter()
        .map(|issuer| identity::authority(issuer.der()).unwrap())
        .collect();
    let mut table = Revocation::new(true);
    for list in lists {
        add(&mut table, list);
    }
    table.judge(authorities, has_signed);
    table
}

fn add(table: &mut Revocation, list: &[u8]) {
    let crl = Crl::parse(list).unwrap();
    table.add(&crl, b"key", Path::new("crl.pem")).unwrap();
}

fn status(table: &Revocation, chain: &[&[u8]]) -> Status {
    table.status(&table.links(chain.iter().copied()).unwrap(), NOW)
}

#[test]
fn a_serial_is_revoked_by_its_own_issuer_only() {
    let (plant, office) = (root("plant"), root("office"));
    let table = table(
        &[&plant, &office],
        &[list(&plant, &[7, 300], 2100), list(&office, &[8], 2100)],
    );
    assert_eq!(table.revoked_len(), 3);
    for (issuer, serial, expected) in [
        (&plant, 7, Status::Revoked),
        (&plant, 300, Status::Revoked),
        (&plant, 8, Status::Good),
        (&office, 8, Status::Revoked),
        (&office, 7, Status::Good),
    ] {
        assert_eq!(
            status(&table, &[&device(issuer, serial)]),
            expected,
            "{serial}"
        );
    }
}

#[test]
fn lists_of_one_issuer_add_up_and_the_oldest_decides() {
    let plant = root("plant");
    let both = table(
        &[&plant],
        &[list(&plant, &[7], 2100), list(&plant, &[8], 2100)],
    );
    assert_eq!(
        [7, 8, 9]
            .map(|serial| both.is_revoked(&both.links([&device(&plant, serial)[..]]).unwrap())),
        [true, true, false]
    );
    let one_is_old = table(
        &[&plant],
        &[list(&plant, &[7], 2100), list(&plant, &[], 2025)],
    );
    assert_eq!(status(&one_is_old, &[&device(&plant, 7)]), Status::Revoked);
    assert_eq!(status(&one_is_old, &[&device(&plant, 9)]), Status::Outdated);
}

#[test]
fn what_nobody_lists_is_unknown_if_that_matters() {
    let (plant, office) = (root("plant"), root("office"));
    let mut table = table(&[&plant, &office], &[list(&plant, &[], 2100)]);
    assert_eq!(status(&table, &[&device(&office, 7)]), Status::Unlisted);
    table.is_strict = false;
    assert_eq!(status(&table, &[&device(&office, 7)]), Status::Good);
    assert_eq!(
        status(&Revocation::off(), &[&device(&office, 7)]),
        Status::Good
    );
}

#[test]
fn the_whole_chain_is_asked_about_up_to_an_authority_of_the_bundle() {
    let plant = root("plant");
    let line = below(&plant, "line", 50);
    let leaf = device(&line, 7);
    let lists = |revoked| [list(&plant, revoked, 2100), list(&line, &[], 2100)];
    let chain: [&[u8]; 2] = [&leaf, line.der()];
    assert_eq!(status(&table(&[&plant], &lists(&[])), &chain), Status::Good);
    assert_eq!(
        status(&table(&[&plant], &lists(&[50])), &chain),
        Status::Revoked
    );
    // The bundle has the intermediate itself: what a device sends above it does not matter.
    let stops = table(&[&line], &[list(&line, &[], 2100)]);
    assert_eq!(status(&stops, &chain), Status::Good);
}

#[test]
fn a_revoked_authority_takes_along_those_below_it() {
    let plant = root("plant");
    let line = below(&plant, "line", 50);
    let cell = below(&line, "cell", 60);
    let lists = [
        list(&plant, &[50], 2100),
        list(&line, &[], 2100),
        list(&cell, &[], 2100),
    ];
    let table = table(&[&plant, &line, &cell], &lists);
    assert_eq!(status(&table, &[&device(&cell, 7)]), Status::Revoked);
    assert_eq!(status(&table, &[&device(&line, 7)]), Status::Revoked);
    assert_eq!(status(&table, &[&device(&plant, 7)]), Status::Good);
}

#[test]
fn an_authority_stands_while_one_of_its_name_does() {
    let plant = root("plant");
    let (old, new) = (below(&plant, "line", 50), below(&plant, "line", 51));
    let lists = |revoked| [list(&plant, revoked, 2100), list(&new, &[], 2100)];
    assert_eq!(
        status(
            &table(&[&plant, &old, &new], &lists(&[50])),
            &[&device(&new, 7)]
        ),
        Status::Good
    );
    assert_eq!(
        status(
            &table(&[&plant, &old, &new], &lists(&[50, 51])),
            &[&device(&new, 7)]
        ),
        Status::Revoked
    );
}

/// The holder of a revoked authority's key cannot hide it from the check, whatever chain he sends.
#[test]
fn nothing_hides_a_revoked_authority() {
    let plant = root("plant");
    let (old, new) = (below(&plant, "line", 50), below(&plant, "line", 51));
    let cell = below(&old, "cell", 60);
    let (leaf, leaf_below) = (device(&old, 7), device(&cell, 7));
    let lists = [
        list(&plant, &[50], 2100),
        list(&new, &[], 2100),
        list(&cell, &[], 2100),
    ];
    let table = table(&[&plant, &new], &lists);
    assert_eq!(
        status(&table, &[&leaf, old.der()]),
        Status::Revoked,
        "behind one of its name in the bundle"
    );
    assert_eq!(
        status(&table, &[&leaf, new.der(), old.der()]),
        Status::Revoked,
        "behind one of its name in the chain"
    );
    let decoys: Vec<Issuer> = (70..80)
        .map(|serial| below(&plant, "cell", serial))
        .collect();
    let mut chain: Vec<&[u8]> = vec![&leaf_below];
    chain.extend(decoys.iter().map(|decoy| decoy.der().as_ref()));
    chain.extend([cell.der().as_ref(), old.der().as_ref()]);
    assert_eq!(status(&table, &chain), Status::Revoked, "behind many");
    let many: Vec<&[u8]> = std::iter::repeat_n(&leaf[..], 17).collect();
    assert!(table.links(many).is_err());
}

#[test]
fn a_revoked_authority_leaves_the_bundle_while_one_of_its_name_stands() {
    let plant = root("plant");
    let (old, new) = (below(&plant, "line", 50), below(&plant, "line", 51));
    let judged = |revoked: &[u64]| {
        let bundle = [&plant, &old, &new].map(|issuer| identity::authority(issuer.der()).unwrap());
        let mut table = Revocation::new(true);
        add(&mut table, &list(&plant, revoked, 2100));
        table.judge(bundle.into(), has_signed)
    };
    assert_eq!(judged(&[]), [true, true, true]);
    assert_eq!(judged(&[50]), [true, false, true]);
    // Chains end there, and are refused as revoked.
    assert_eq!(judged(&[50, 51]), [true, true, true]);
}

const HERE: &str = "http://crl.example.com/1";
const THERE: &str = "http://crl.example.com/2";

fn list_at(issuer: &Issuer, uri: &str, scope: Option<CrlScope>, due_year: i32) -> Vec<u8> {
    let mut params = list_params(&[7], due_year);
    params.issuing_distribution_point = Some(CrlIssuingDistributionPoint {
        distribution_point: CrlDistributionPoint {
            uris: vec![uri.into()],
        },
        scope,
    });
    params.signed_by(issuer).unwrap().der().to_vec()
}

fn device_at(issuer: &Issuer, serial: u64, uris: &[&str]) -> Vec<u8> {
    let mut params = params("device", serial);
    let point = |uri: &&str| CrlDistributionPoint {
        uris: vec![(*uri).to_owned()],
    };
    params.crl_distribution_points = uris.iter().map(point).collect();
    let certificate = params.signed_by(&KeyPair::generate().unwrap(), issuer);
    certificate.unwrap().der().to_vec()
}

/// RFC 5280, 6.3.3 (b) (2).
#[test]
fn a_list_speaks_for_the_certificates_that_name_its_place() {
    let plant = root("plant");
    let here = table(&[&plant], &[list_at(&plant, HERE, None, 2100)]);
    for (uris, expected) in [
        (&[HERE][..], Status::Good),
        (&[THERE, HERE], Status::Good),
        (&[THERE], Status::Unlisted),
        (&[], Status::Unlisted),
    ] {
        let device = device_at(&plant, 8, uris);
        assert_eq!(status(&here, &[&device]), expected, "{uris:?}");
        // A certificate that a list names is revoked, wherever the list is found.
        let revoked = device_at(&plant, 7, uris);
        assert_eq!(status(&here, &[&revoked]), Status::Revoked, "{uris:?}");
    }
    let with_whole = [list_at(&plant, HERE, None, 2025), list(&plant, &[], 2100)];
    let both = table(&[&plant], &with_whole);
    for uris in [&[HERE][..], &[THERE], &[]] {
        let device = device_at(&plant, 8, uris);
        assert_eq!(status(&both, &[&device]), Status::Good, "{uris:?}");
    }
    let old = table(&[&plant], &[list_at(&plant, HERE, None, 2025)]);
    let device = device_at(&plant, 8, &[HERE]);
    assert_eq!(status(&old, &[&device]), Status::Outdated);
}

#[test]
fn a_list_speaks_for_devices_or_for_authorities() {
    let plant = root("plant");
    let line = below(&plant, "line", 50);
    let leaf = device_at(&line, 8, &[]);
    let chain: [&[u8]; 2] = [&leaf, line.der()];
    let bare = |scope: u8| {
        // An issuingDistributionPoint that names no place.
        let value = [0x30, 3, 0x80 | scope, 1, 0xff];
        Scope::read(&value).unwrap()
    };
    let links = table(&[&plant], &[]).links(chain).unwrap();
    let covers = |scope: &Scope| {
        links
            .iter()
            .map(|link| scope.covers(link))
            .collect::<Vec<_>>()
    };
    assert_eq!(covers(&Scope::default()), [true, true]);
    assert_eq!(covers(&bare(1)), [true, false]);
    assert_eq!(covers(&bare(2)), [false, true]);
    let users = list_at(&plant, HERE, Some(CrlScope::UserCertsOnly), 2100);
    let device = device_at(&plant, 8, &[HERE]);
    assert_eq!(
        status(&table(&[&plant], &[users]), &[&device]),
        Status::Good
    );
    for partial in [
        &[0x30, 4, 0x83, 2, 1, 0x80][..],
        &[0x30, 3, 0x84, 1, 0xff],
        &[0x30, 3, 0x85, 1, 0xff],
    ] {
        assert_eq!(Scope::read(partial), Err(CrlError::Partial));
    }
    for malformed in [
        &[0x30, 2, 0xa0, 0][..],
        &[0x30, 4, 0xa0, 2, 0xa0, 0],
        &[0x30, 6, 0x81, 1, 0xff, 0x82, 1, 0xff],
        &[0x30, 3, 0x86, 1, 0xff],
        &[0x31, 0],
    ] {
        assert_eq!(Scope::read(malformed), Err(CrlError::Malformed));
    }
    assert_eq!(Scope::read(&[0x30, 3, 0x84, 1, 0]), Ok(Scope::default()));
}

#[test]
fn the_newest_edition_is_known_by_number_and_date() {
    let plant = root("plant");
    let edition = |number: &[u8], year| {
        let mut params = list_params(&[], 2100);
        params.crl_number = SerialNumber::from_slice(number);
        params.this_update = date_time_ymd(year, 1, 1);
        params.signed_by(&plant).unwrap().der().to_vec()
    };
    let table = |lists: &[Vec<u8>]| table(&[&plant], lists);
    let is_stale =
        |now: &[Vec<u8>], before: &[Vec<u8>]| table(now).stale_file(&table(before)).is_some();
    let ascending = [
        edition(&[5], 2024),
        edition(&[5], 2025),
        edition(&[0xff], 2024),
        edition(&[1, 0], 2023),
    ];
    for (index, list) in ascending.iter().enumerate() {
        for (other_index, other) in ascending.iter().enumerate() {
            let expected = index < other_index;
            let is_stale = is_stale(from_ref(list), from_ref(other));
            assert_eq!(is_stale, expected, "{index} {other_index}");
        }
    }
    // The newest counts; other scopes and other issuers have their own.
    let both = [ascending[0].clone(), ascending[3].clone()];
    assert!(!is_stale(&both, &ascending[3..]));
    assert!(is_stale(&ascending[..1], &both));
    let partition = list_at(&plant, HERE, None, 2100);
    assert!(!is_stale(&[partition], &both));
    assert!(!is_stale(&[list(&root("office"), &[], 2100)], &both));
}

/// Two roots of one name: who has signed is told by the signature.
#[test]
fn an_authority_that_is_gone_vouches_for_nobody() {
    let (old, new) = (root("plant"), root("plant"));
    let line = below(&old, "line", 50);
    let (by_old, by_new) = (device(&old, 7), device(&new, 8));
    let by_line = device(&line, 9);
    let off = |bundle: &[&Issuer]| {
        let mut table = Revocation::off();
        let authorities = bundle
            .iter()
            .map(|issuer| identity::authority(issuer.der()));
        table.judge(authorities.map(Result::unwrap).collect(), has_signed);
        table
    };
    let both = off(&[&old, &new]);
    let chains: [&[&[u8]]; 3] = [&[&by_old], &[&by_new], &[&by_line, line.der()]];
    let links = chains.map(|chain| both.links(chain.iter().copied()).unwrap());
    let ends = |table: &Revocation| links.each_ref().map(|links| table.is_revoked(links));
    assert_eq!(ends(&both), [false, false, false]);
    assert_eq!(ends(&off(&[&new])), [true, false, true]);
    assert_eq!(ends(&off(&[&old])), [false, true, false]);
    assert_eq!(ends(&off(&[&line])), [true, true, true]);
    assert_eq!(ends(&Revocation::off()), [false, false, false]);
    // The certificate is another one, the authority is the same.
    let mut renewed = issuer_params("plant", 99);
    renewed.not_after = date_time_ymd(2050, 1, 1);
    let key = KeyPair::try_from(old.key().serialize_der()).unwrap();
    let renewed = CertifiedIssuer::self_signed(renewed, key).unwrap();
    assert_eq!(ends(&off(&[&renewed])), [false, true, false]);
}

/// A device whose authority will go sends an intermediate along that names another one as its
/// issuer.
#[test]
fn no_decoy_keeps_a_connection_of_an_authority_that_is_gone() {
    let (good, bad) = (root("good"), root("bad"));
    let line = below(&bad, "line", 50);
    let leaf = device(&line, 7);
    let forged = |key: &KeyPair| {
        // The same name and key as the real one, said to be issued by the good root, signed by
        // nobody who may.
        let forger =
            CertifiedIssuer::self_signed(issuer_params("good", 1), KeyPair::generate().unwrap());
        let key = KeyPair::try_from(key.serialize_der()).unwrap();
        CertifiedIssuer::signed_by(issuer_params("line", 51), key, &forger.unwrap()).unwrap()
    };
    let (forged, namesake) = (forged(line.key()), below(&good, "line", 52));
    let chain: [&[u8]; 4] = [&leaf, namesake.der(), forged.der(), line.der()];
    let bundle = |bundle: &[&Issuer]| table(bundle, &[]);
    let links = bundle(&[&good, &bad]).links(chain).unwrap();
    assert!(!bundle(&[&good, &bad]).is_revoked(&links));
    assert!(bundle(&[&good]).is_revoked(&links));
    assert!(!bundle(&[&bad]).is_revoked(&links));
}

#[test]
fn damaged_lists_are_errors_and_no_panic() {
    let whole = list(&root("plant"), &[7, 300], 2100);
    for length in 0..whole.len() {
        assert_eq!(
            Crl::parse(&whole[..length]).map(|_| ()),
            Err(CrlError::Malformed),
            "{length}"
        );
    }
    for place in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x55;
        if let Ok(crl) = Crl::parse(&damaged) {
            crl.serials().for_each(drop);
        }
    }
}
