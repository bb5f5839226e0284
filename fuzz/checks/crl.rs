//! Any bytes in the place of a list of revoked certificates.

use forebay::identity::{Crl, Link, significant};
use forebay::record::Timestamp;
use forebay::tls::{Revocation, Status};

/// A list that is loaded revokes each certificate that it names, and says nothing when it is out of date.
pub fn check(data: &[u8]) {
    let Ok(crl) = Crl::parse(data) else { return };
    let mut revocation = Revocation::new(true);
    if revocation.add(&crl).is_err() {
        return;
    }
    for serial in crl.serials() {
        let serial = serial.expect("the list was loaded");
        assert_eq!(significant(serial), serial);
        let link = Link {
            issuer: crl.issuer.into(),
            serial: serial.into(),
        };
        assert_eq!(revocation.status(&[link], Timestamp(0)), Status::Revoked);
    }
    let stranger = Link {
        issuer: Box::from(&b"stranger"[..]),
        serial: Box::from(&b"1"[..]),
    };
    assert_eq!(
        revocation.status(&[stranger], Timestamp(0)),
        Status::Unknown
    );
}
