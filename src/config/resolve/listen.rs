//! The settings of listening: addresses, bounds of connections, and the files of TLS.

use std::net::IpAddr;

use super::*;

impl Reader<'_> {
    /// Refuses two listeners on one address. Both may leave their ports to the kernel, or be on other
    /// addresses of the machine.
    pub(super) fn check_addresses(&mut self, listen: SocketAddr, admin: SocketAddr) {
        let is_same_port = listen.port() != 0 && listen.port() == admin.port();
        if is_same_port && (holds(listen.ip(), admin.ip()) || holds(admin.ip(), listen.ip())) {
            let fault = "is the address of FOREBAY_LISTEN: give it another port";
            self.fault("FOREBAY_ADMIN_LISTEN", fault);
        }
    }

    pub(super) fn listen(&mut self) -> ListenConfig {
        let workers = self.count("FOREBAY_WORKERS", WORKERS_MAX);
        ListenConfig {
            address: self.value("FOREBAY_LISTEN", address, ([127, 0, 0, 1], 0).into()),
            http3: self.value("FOREBAY_HTTP3", value::switch, true),
            workers: NonZeroUsize::new(workers).unwrap_or(NonZeroUsize::MIN),
            reuse_port: self.value("FOREBAY_REUSE_PORT", value::switch, false),
            connections: self.connections(),
            handshake_timeout: self.timeout("FOREBAY_HANDSHAKE_TIMEOUT"),
        }
    }

    fn connections(&mut self) -> ConnectionsConfig {
        let all_max = self.count("FOREBAY_CONNECTIONS_MAX", host::CONNECTIONS_MAX);
        let of_address = self.optional("FOREBAY_ADDRESS_CONNECTIONS_MAX", |text| {
            value::count(text, usize::MAX)
        });
        ConnectionsConfig {
            all_max,
            tcp_max: all_max.min(host::tcp_connections_max()),
            address_max: of_address.unwrap_or((all_max - all_max / 4).max(1)),
            device_max: self.count("FOREBAY_DEVICE_CONNECTIONS_MAX", host::CONNECTIONS_MAX),
            handshakes_max: self.value(
                "FOREBAY_HANDSHAKES_MAX",
                |text| value::count(text, host::CONNECTIONS_MAX),
                host::CONNECTIONS_MAX,
            ),
        }
    }

    pub(super) fn tls(&mut self) -> TlsConfig {
        TlsConfig {
            cert: self.required("FOREBAY_TLS_CERT", value::files),
            key: self.required("FOREBAY_TLS_KEY", value::files),
            client_ca: self.required("FOREBAY_TLS_CLIENT_CA", file),
            crl: self.value("FOREBAY_TLS_CRL", value::files, Vec::new()),
            crl_strict: self.value("FOREBAY_TLS_CRL_STRICT", value::switch, true),
            min_version: self.value(
                "FOREBAY_TLS_MIN_VERSION",
                value::tls_version,
                TlsVersion::Tls12,
            ),
            amazon_alpn: false,
        }
    }
}

/// Whether who listens on `address` has `other` too. What stands for all addresses of IPv6 stands
/// for those of IPv4 as well, unless the machine says otherwise.
fn holds(address: IpAddr, other: IpAddr) -> bool {
    let (address, other) = (address.to_canonical(), other.to_canonical());
    let is_for_all = address.is_unspecified() && (address.is_ipv6() || other.is_ipv4());
    is_for_all || address == other
}
