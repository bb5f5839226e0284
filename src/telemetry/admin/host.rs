//! By which name somebody asks. A page from elsewhere can have its own name lead to this machine, and
//! would then be let read what it is answered; no such name is an IP address or `localhost`.
//!
//! Probes and `/metrics` are answered under every name: they tell nothing of devices, and whoever
//! scrapes may know this machine by one.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::header::HOST;
use http::request::Parts;

use super::files;

/// Body of the 421 for a `Host` that is neither an IP address nor `localhost`.
pub(super) const ADVICE: &str = "the live page, its stream and /debug are answered to who asks by \
    an IP address or as localhost: forward a port, and open http://localhost:PORT/\n";

/// Tells whether what is at this path is for people, not for probes.
pub(super) fn is_guarded(path: &str) -> bool {
    let is_debug = path == "/debug" || path.starts_with("/debug/");
    is_debug || path == "/live" || files::find(path).is_some()
}

/// Tells whether the request asks by an IP address or as localhost, wherever it says so. An old client
/// that says nothing at all is no browser.
pub(super) fn is_local(head: &Parts) -> bool {
    if let Some(authority) = head.uri.authority()
        && !is_local_authority(authority.as_str())
    {
        return false;
    }
    let mut hosts = head.headers.get_all(HOST).iter();
    hosts.all(|host| host.to_str().is_ok_and(is_local_authority))
}

/// `127.0.0.1`, `[::1]` or `localhost`, with or without a port.
fn is_local_authority(authority: &str) -> bool {
    let host = without_port(authority);
    if let Some(bracketed) = host.strip_prefix('[') {
        let address = bracketed.strip_suffix(']').unwrap_or_default();
        return address.parse::<Ipv6Addr>().is_ok();
    }
    host.eq_ignore_ascii_case("localhost") || host.parse::<Ipv4Addr>().is_ok()
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_local() {
        for local in [
            "127.0.0.1",
            "127.0.0.1:9444",
            "10.1.2.3:80",
            "[::1]",
            "[::1]:9444",
            "[fe80::1]:1",
            "localhost",
            "LocalHost:9444",
            "localhost:",
        ] {
            assert!(is_local_authority(local), "{local}");
        }
        for other in [
            "",
            ":9444",
            "gateway",
            "gateway:9444",
            "localhost.",
            "localhost.example",
            "127.0.0.1.example",
            "127.1",
            "2130706433",
            "::1",
            "[::1",
            "[gateway]",
            "[127.0.0.1]",
            "localhost:x",
            "localhost:1:2",
            "me@localhost",
            "localhost:9444, gateway",
        ] {
            assert!(!is_local_authority(other), "{other}");
        }
    }
}
