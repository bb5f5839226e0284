//! Any bytes in the place of a device's certificate, or of a chain of them.

use forebay::internals::config::IdSource;
use forebay::internals::identity::{Bundle, Identity, authority, links, serial};
use forebay::internals::record::DeviceId;

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
        let nobody = Bundle::new([], |_, _| false);
        // The verifier takes no certificate whose signature has no whole bytes, so this is not asked for one.
        let Ok(links) = links([data], &nobody) else {
            continue;
        };
        assert_eq!(links[0].serial, serial(data).expect("it was read before"));
    }
    let bundle = Bundle::new(authority(data), |_, _| true);
    let (first, second) = data.split_at(data.len() / 2);
    for chain in [&[first, second][..], &[data], &[data, data]] {
        let Ok(links) = links(chain.iter().copied(), &bundle) else {
            continue;
        };
        let mut anchors = links.iter().flat_map(|link| &link.anchors);
        assert!(anchors.all(|id| bundle.contains(id)));
    }
}
