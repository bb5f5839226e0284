//! Chains, lists and authorities: who is revoked, who is not, and of whom nobody knows.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    CrlDistributionPoint, CrlIssuingDistributionPoint, CrlScope, DistinguishedName, DnType, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};

use super::*;

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
    lists
        .iter()
        .for_each(|list| table.add(&Crl::parse(list).unwrap()).unwrap());
    table.judge(&authorities);
    table
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
    assert_eq!(status(&one_is_old, &[&device(&plant, 9)]), Status::Unknown);
}

#[test]
fn what_nobody_lists_is_unknown_if_that_matters() {
    let (plant, office) = (root("plant"), root("office"));
    let mut table = table(&[&plant, &office], &[list(&plant, &[], 2100)]);
    assert_eq!(status(&table, &[&device(&office, 7)]), Status::Unknown);
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

/// Whoever has the key of a revoked authority may send whatever stands between it and the check.
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
    let bundle = [&plant, &old, &new].map(|issuer| identity::authority(issuer.der()).unwrap());
    let judged = |revoked: &[u64]| {
        let mut table = Revocation::new(true);
        let list = list(&plant, revoked, 2100);
        table.add(&Crl::parse(&list).unwrap()).unwrap();
        table.judge(&bundle)
    };
    assert_eq!(judged(&[]), [true, true, true]);
    assert_eq!(judged(&[50]), [true, false, true]);
    // Chains end there, and are refused as revoked.
    assert_eq!(judged(&[50, 51]), [true, true, true]);
}

#[test]
fn a_list_that_speaks_for_some_only_is_refused() {
    let plant = root("plant");
    let scoped = |scope| {
        let mut params = list_params(&[7], 2100);
        let distribution_point = CrlDistributionPoint {
            uris: vec!["http://crl.example.com/1".into()],
        };
        params.issuing_distribution_point = Some(CrlIssuingDistributionPoint {
            distribution_point,
            scope,
        });
        params.signed_by(&plant).unwrap().der().to_vec()
    };
    assert_eq!(
        Crl::parse(&scoped(None)).map(|crl| crl.serials().count()),
        Ok(1)
    );
    let partial = scoped(Some(CrlScope::CaCertsOnly));
    assert_eq!(Crl::parse(&partial).map(|_| ()), Err(CrlError::Partial));
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
