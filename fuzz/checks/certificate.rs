//! Any bytes in the place of a device's certificate, or of a chain of them.

use forebay::config::IdSource;
use forebay::identity::{Identity, authority, links, serial};
use forebay::record::DeviceId;

/// A certificate names a device by one id of the fixed alphabet, or none; each reader agrees that it can be read.
pub fn check(data: &[u8]) {
    for sources in [
        vec![IdSource::SanUri, IdSource::SanDns, IdSource::Cn],
        vec![IdSource::Fingerprint],
    ] {
        let Ok(device) = Identity::new(sources).device(data) else {
            continue;
        };
        assert_eq!(
            DeviceId::parse(device.id.as_str()).as_ref(),
            Some(&device.id)
        );
        let links = links([data], |_, _| false).expect("it was read before");
        assert_eq!(links[0].serial, serial(data).expect("it was read before"));
    }
    let _ = authority(data);
    let (first, second) = data.split_at(data.len() / 2);
    let _ = links([first, second], |_, _| false);
}
