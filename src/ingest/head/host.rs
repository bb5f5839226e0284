//! Hosts, as requests name them: by a target or a Host field, with a port or without.
//!
//! `head` asks whether two names are one, `routes` for the host that is one of the gateway's names.
//! Nothing is resolved; a text that is no authority is malformed.

use http::uri::Authority;

use crate::ingest::Refusal;

/// Whether two authorities of `https` are one: case and the port that is the default make no
/// difference (RFC 9110 section 4.2.3).
pub(super) fn is_same_authority(one: &str, other: &str) -> bool {
    without_default_port(one).eq_ignore_ascii_case(without_default_port(other))
}

fn without_default_port(authority: &str) -> &str {
    let without = authority.strip_suffix(":443");
    without.unwrap_or_else(|| authority.strip_suffix(':').unwrap_or(authority))
}

/// Returns the host of an authority, without its port. A text that is no authority is malformed.
pub(in crate::ingest) fn host_of(authority: &str) -> Result<&str, Refusal> {
    const NOT_A_HOST: Refusal =
        Refusal::Malformed("the authority is not a host with or without a port");
    let (host, port) = split_port(authority);
    let is_port = port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    if !is_port {
        return Err(NOT_A_HOST);
    }
    if is_plain_host(host) {
        return Ok(host);
    }
    // Anything else is rare: an IPv6 address, or a fault.
    match authority.parse::<Authority>() {
        Ok(parsed) if parsed.host().len() == host.len() => Ok(host),
        _ => Err(NOT_A_HOST),
    }
}

/// Returns the host of an authority, and the port, which may be empty.
fn split_port(authority: &str) -> (&str, &str) {
    match memchr::memrchr(b':', authority.as_bytes()) {
        Some(colon) if !authority.ends_with(']') => (&authority[..colon], &authority[colon + 1..]),
        _ => (authority, ""),
    }
}

/// Whether the host is a name or an IPv4 address, by its letters.
fn is_plain_host(host: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    !host.is_empty() && host.bytes().all(is_plain)
}
