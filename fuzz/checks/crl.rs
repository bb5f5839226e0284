//! Any bytes in the place of a list of revoked certificates.

use std::path::Path;

use forebay::internals::identity::{Crl, Link, Scope, significant};
use forebay::internals::record::Timestamp;
use forebay::internals::tls::{Revocation, Status};

/// A list that is loaded revokes each certificate that it names, speaks for those of its scope only, and says nothing when
/// it is out of date. Whatever an issuingDistributionPoint says, it is read or refused.
pub fn check(data: &[u8]) {
    if let Ok(scope) = Scope::read(data) {
        let nowhere = Link::default();
        assert!(!scope.is_partition() || !scope.covers(&nowhere));
    }
    let Ok(crl) = Crl::parse(data) else { return };
    let mut revocation = Revocation::new(true);
    if revocation.add(&crl, &[], Path::new("")).is_err() {
        return;
    }
    let link = |issuer: &[u8], serial: &[u8]| Link {
        issuer: issuer.into(),
        serial: serial.into(),
        ..Link::default()
    };
    for serial in crl.serials() {
        let serial = serial.expect("the list was loaded");
        assert_eq!(significant(serial), serial);
        let listed = link(crl.issuer, serial);
        assert_eq!(revocation.status(&[listed], Timestamp(0)), Status::Revoked);
    }
    let stranger = link(b"stranger", b"1");
    assert_eq!(
        revocation.status(&[stranger], Timestamp(0)),
        Status::Unlisted
    );
    // Longer than any serial number that a list of this size could name.
    let other = link(crl.issuer, &vec![1; data.len()]);
    let after = if crl.scope.covers(&other) {
        Status::Outdated
    } else {
        Status::Unlisted
    };
    let is_known = after == Status::Outdated && crl.next_update > Timestamp(0);
    let expected = if is_known { Status::Good } else { after };
    assert_eq!(
        revocation.status(std::slice::from_ref(&other), Timestamp(0)),
        expected
    );
    assert_eq!(revocation.status(&[other], crl.next_update), after);
    assert!(revocation.stale_file(&revocation).is_none());
}
