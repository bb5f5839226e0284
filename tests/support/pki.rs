//! Certificates for a test: authorities, the server's, and devices good and odd, as PEM files in a folder.
//!
//! A test makes a [`Pki`] for itself, which takes milliseconds. Everything chains to `ca.pem`, but for what a stranger
//! signed; devices may hang below an intermediate authority, which they then bring along.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationList,
    CertificateRevocationListParams, CertifiedIssuer, CrlDistributionPoint,
    CrlIssuingDistributionPoint, CrlScope, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose as Usage, GeneralSubtree, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose,
    NameConstraints, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};

type Authority = CertifiedIssuer<'static, KeyPair>;

/// A root authority and the folder of what it signed.
pub struct Pki {
    dir: PathBuf,
    root: Authority,
    /// For `localhost` and `127.0.0.1`.
    pub server: Identity,
}

/// A certificate chain with its key, as files.
#[derive(Clone, Debug)]
pub struct Identity {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// A list of the root that is unlike the others.
pub struct List<'a> {
    pub revoked: &'a [&'a Identity],
    pub number: u64,
    /// From now: when it was made, and when the next one is due.
    pub made_seconds: i64,
    pub due_seconds: i64,
    /// The place that it speaks for.
    pub point: Option<&'a str>,
    pub users_only: bool,
}

impl Default for List<'_> {
    fn default() -> Self {
        Self {
            revoked: &[],
            number: 1,
            made_seconds: -7200,
            due_seconds: 3600,
            point: None,
            users_only: false,
        }
    }
}

impl Identity {
    /// The authority whose certificate is sent along.
    pub fn issuer(&self) -> Self {
        let chain = fs::read_to_string(&self.cert).expect("a file");
        let (_, issuer) = chain.split_once("-----END CERTIFICATE-----").expect("PEM");
        let cert = self.cert.with_extension("issuer.pem");
        fs::write(&cert, issuer.trim_start()).expect("a file");
        Self {
            key: cert.clone(),
            cert,
        }
    }

    /// The serial number of the leaf.
    pub fn serial(&self) -> Vec<u8> {
        let pem = fs::read(&self.cert).expect("a file");
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).expect("PEM");
        pem.parse_x509()
            .expect("a certificate")
            .raw_serial()
            .to_vec()
    }
}

impl Identity {
    /// The leaf, in DER.
    fn der(&self) -> Vec<u8> {
        let pem = fs::read(&self.cert).expect("a file");
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).expect("PEM");
        pem.contents
    }

    /// The fingerprint of the leaf, as a devices file pins it.
    pub fn fingerprint(&self) -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.der());
        let hex = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
        format!("sha256:{}", hex.collect::<String>())
    }

    /// Another certificate over the same key, which vouches for itself, too.
    pub fn twin(&self) -> Self {
        let key = fs::read_to_string(&self.key).expect("a file");
        let key = KeyPair::from_pem(&key).expect("a key");
        self_signed(
            &self.cert.with_extension("twin.pem"),
            device(&["twin"]),
            &key,
        )
    }
}

/// Writes a certificate of nobody's but its own key.
fn self_signed(cert: &Path, params: CertificateParams, key: &KeyPair) -> Identity {
    let certificate = params.self_signed(key).expect("a certificate");
    let identity = Identity {
        cert: cert.to_owned(),
        key: cert.with_extension("key"),
    };
    fs::write(&identity.cert, certificate.pem()).expect("a file");
    fs::write(&identity.key, key.serialize_pem()).expect("a file");
    identity
}

impl Pki {
    /// A certificate that no authority has signed, and that names no device, as machines make them
    /// for themselves.
    pub fn self_made(&self, name: &str) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let organization = DnType::OrganizationName;
        params.distinguished_name.push(organization, "a machine");
        self_signed(&self.dir.join(format!("{name}.pem")), params, &key())
    }

    /// The same, out of date for years.
    pub fn self_made_expired(&self, name: &str) -> Identity {
        let mut params = device(&[name]);
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 1);
        self_signed(&self.dir.join(format!("{name}.pem")), params, &key())
    }

    /// A device with the serial number of another.
    pub fn with_serial_of(&self, other: &Identity, id: &str) -> Identity {
        let mut params = device(&[id]);
        params.serial_number = Some(SerialNumber::from_slice(&other.serial()));
        self.sign(id, params)
    }

    pub fn new(dir: &Path) -> Self {
        Self::with_root(dir, "root")
    }

    fn with_root(dir: &Path, name: &str) -> Self {
        fs::create_dir_all(dir).expect("a folder");
        let root = CertifiedIssuer::self_signed(authority(name), key()).expect("a certificate");
        fs::write(dir.join("ca.pem"), root.pem()).expect("a file");
        let server = sign(dir, "server", server(), &root, "");
        Self {
            dir: dir.to_owned(),
            root,
            server,
        }
    }

    /// Path of the authority that both sides trust.
    pub fn ca(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// A good certificate: the id is its one SAN URI.
    pub fn device(&self, id: &str) -> Identity {
        self.sign(id, device(&[id]))
    }

    /// A certificate with these SAN URIs and no other name, from which no id may follow.
    pub fn device_with_uris(&self, name: &str, uris: &[&str]) -> Identity {
        self.sign(name, device(uris))
    }

    /// A device below an intermediate authority that the gateway does not know; the device sends its certificate.
    pub fn device_below_intermediate(&self, id: &str) -> Identity {
        let intermediate = CertifiedIssuer::signed_by(authority("intermediate"), key(), &self.root);
        let intermediate = intermediate.expect("a certificate");
        sign(
            &self.dir,
            id,
            device(&[id]),
            &intermediate,
            &intermediate.pem(),
        )
    }

    /// A certificate that is good for servers only.
    pub fn wrong_usage(&self) -> Identity {
        let mut params = device(&["wrong-usage"]);
        params.extended_key_usages = vec![Usage::ServerAuth];
        self.sign("wrong-usage", params)
    }

    /// A certificate that does not say what it is good for.
    pub fn without_usage(&self, id: &str) -> Identity {
        let mut params = device(&[id]);
        params.extended_key_usages.clear();
        self.sign(id, params)
    }

    /// A device that says where its CRL is found.
    pub fn device_at(&self, id: &str, point: &str) -> Identity {
        let mut params = device(&[id]);
        params.crl_distribution_points = vec![CrlDistributionPoint {
            uris: vec![point.to_owned()],
        }];
        self.sign(id, params)
    }

    /// A device that one source names, below an intermediate that may only issue DNS names below `domain`.
    pub fn device_below_constrained(&self, domain: &str, source: &str, name: &str) -> Identity {
        let mut params = authority("constrained");
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName(domain.to_owned())],
            excluded_subtrees: Vec::new(),
        });
        let intermediate = CertifiedIssuer::signed_by(params, key(), &self.root);
        let intermediate = intermediate.expect("a certificate");
        let mut params = device(&[]);
        let ascii = || name.try_into().expect("an ASCII string");
        match source {
            "san-uri" => params.subject_alt_names.push(SanType::URI(ascii())),
            "san-dns" => params.subject_alt_names.push(SanType::DnsName(ascii())),
            _ => params.distinguished_name.push(DnType::CommonName, name),
        }
        sign(&self.dir, name, params, &intermediate, &intermediate.pem())
    }

    /// A server whose chain has an intermediate.
    pub fn server_below_intermediate(&self) -> Identity {
        let intermediate = CertifiedIssuer::signed_by(authority("servers"), key(), &self.root);
        let intermediate = intermediate.expect("a certificate");
        let chain = intermediate.pem();
        sign(&self.dir, "chained", server(), &intermediate, &chain)
    }

    /// A certificate that has been out of date for years.
    pub fn expired(&self) -> Identity {
        let mut params = device(&["expired"]);
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 1);
        self.sign("expired", params)
    }

    /// A certificate whose first day is years away.
    pub fn not_yet_valid(&self) -> Identity {
        let mut params = device(&["not-yet"]);
        params.not_before = date_time_ymd(2090, 1, 1);
        params.not_after = date_time_ymd(2091, 1, 1);
        self.sign("not-yet", params)
    }

    /// A certificate that ends so many seconds from now.
    pub fn expiring(&self, id: &str, seconds: u64) -> Identity {
        let mut params = device(&[id]);
        let now = jiff::Timestamp::now().as_second().unsigned_abs();
        params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(now + seconds);
        self.sign(id, params)
    }

    /// Writes `crl.pem`: the root's list of these, due in an hour. Replaced as a whole, as it should be.
    pub fn revoke(&self, revoked: &[&Identity]) -> PathBuf {
        self.replace(
            "crl.pem",
            self.crl(&self.root, revoked, 3600)
                .pem()
                .expect("PEM")
                .as_bytes(),
        )
    }

    /// The root's list of nobody, out of date since an hour.
    pub fn outdated_crl(&self) -> PathBuf {
        self.replace(
            "crl.pem",
            self.crl(&self.root, &[], -3600)
                .pem()
                .expect("PEM")
                .as_bytes(),
        )
    }

    /// The same with so many more, whose serial numbers of 16 bytes nobody has.
    pub fn revoke_many(&self, revoked: &[&Identity], others: u32) -> PathBuf {
        // Spread as random ones are, and the same in each run (Knuth's multiplicative hash).
        let other = |number: u32| {
            [
                &[0x5a; 12][..],
                &number.wrapping_mul(2_654_435_769).to_be_bytes(),
            ]
            .concat()
        };
        let serials = revoked
            .iter()
            .map(|identity| identity.serial())
            .chain((0..others).map(other))
            .collect();
        self.replace(
            "crl.pem",
            crl(&self.root, serials, &List::default())
                .pem()
                .expect("PEM")
                .as_bytes(),
        )
    }

    fn crl(
        &self,
        issuer: &Authority,
        revoked: &[&Identity],
        due_seconds: i64,
    ) -> CertificateRevocationList {
        let list = List {
            due_seconds,
            ..List::default()
        };
        let serials = revoked.iter().map(|identity| identity.serial());
        crl(issuer, serials.collect(), &list)
    }

    /// Writes a list of the root.
    pub fn list(&self, file: &str, list: &List) -> PathBuf {
        let serials = list.revoked.iter().map(|identity| identity.serial());
        let crl = crl(&self.root, serials.collect(), list);
        self.replace(file, crl.pem().expect("PEM").as_bytes())
    }

    /// Puts a file in the place of another at once.
    pub fn replace(&self, file: &str, content: &[u8]) -> PathBuf {
        let (new, file) = (self.dir.join(".new"), self.dir.join(file));
        fs::write(&new, content).expect("a file");
        fs::rename(&new, &file).expect("a file");
        file
    }

    /// Another certificate for the server, which answers to one more name; it is not in force yet.
    pub fn renewed_server(&self, name: &str) -> Identity {
        let mut params = server();
        params
            .subject_alt_names
            .push(SanType::DnsName(name.try_into().expect("a name")));
        self.sign("renewed-server", params)
    }

    /// A root of this name and its own key, in its own folder.
    pub fn other(&self, name: &str) -> Self {
        Self::with_root(&self.dir.join(name), name)
    }

    /// An intermediate authority that the gateway knows: it is in `ca.pem`, and its list, empty and in DER, is
    /// `intermediate.crl`. The device below it does not send it.
    pub fn with_known_intermediate(&self, id: &str) -> (Identity, Identity) {
        let intermediate = CertifiedIssuer::signed_by(authority("intermediate"), key(), &self.root);
        let intermediate = intermediate.expect("a certificate");
        fs::write(self.ca(), self.root.pem() + &intermediate.pem()).expect("a file");
        let cert = self.dir.join("intermediate.pem");
        fs::write(&cert, intermediate.pem()).expect("a file");
        self.replace("intermediate.crl", self.crl(&intermediate, &[], 3600).der());
        let device = sign(&self.dir, id, device(&[id]), &intermediate, "");
        (
            Identity {
                key: cert.clone(),
                cert,
            },
            device,
        )
    }

    /// The root alone, whatever else is in the bundle.
    pub fn root_file(&self) -> PathBuf {
        let file = self.dir.join("root.pem");
        fs::write(&file, self.root.pem()).expect("a file");
        file
    }

    /// So many authorities more in the bundle, with names as long as they usually are.
    pub fn trust_many(&self, authorities: u32) {
        let (mut bundle, key) = (self.root.pem(), key());
        for number in 0..authorities {
            let mut params = authority(&format!("Plant {number:04} Manufacturing Devices CA G2"));
            let name = &mut params.distinguished_name;
            name.push(
                DnType::OrganizationName,
                "Example Industries International AG",
            );
            name.push(DnType::CountryName, "CH");
            let certificate = params.self_signed(&key).expect("a certificate");
            bundle.push_str(&certificate.pem());
        }
        self.replace("ca.pem", bundle.as_bytes());
    }

    /// A device of an authority that is called as this root, and has a key of another kind.
    pub fn rsa_namesake(&self, id: &str) -> Identity {
        let root = CertifiedIssuer::self_signed(authority("root"), rsa_key());
        let root = root.expect("a certificate");
        sign(&self.dir, &format!("{id}-rsa"), device(&[id]), &root, "")
    }

    /// Another certificate for the server, of RSA, which answers to one more name.
    pub fn rsa_server(&self) -> Identity {
        let mut params = server();
        let name = "rsa.example.com".try_into().expect("a name");
        params.subject_alt_names.push(SanType::DnsName(name));
        sign_with(&self.dir, "server-rsa", params, &self.root, "", &rsa_key())
    }

    /// A device that another authority vouches for, one that the gateway does not know.
    pub fn stranger(&self) -> Identity {
        let root =
            CertifiedIssuer::self_signed(authority("strangers"), key()).expect("a certificate");
        sign(&self.dir, "stranger", device(&["stranger"]), &root, "")
    }

    fn sign(&self, name: &str, params: CertificateParams) -> Identity {
        sign(&self.dir, name, params, &self.root, "")
    }
}

fn crl(issuer: &Authority, serials: Vec<Vec<u8>>, list: &List) -> CertificateRevocationList {
    let now = jiff::Timestamp::now().as_second();
    let at = |seconds: i64| {
        let since_1970 = Duration::from_secs((now + seconds).unsigned_abs());
        date_time_ymd(1970, 1, 1) + since_1970
    };
    let entry = |serial: Vec<u8>| RevokedCertParams {
        serial_number: SerialNumber::from_slice(&serial),
        revocation_time: at(0),
        reason_code: None,
        invalidity_date: None,
    };
    let point = list.point.map(|uri| CrlIssuingDistributionPoint {
        distribution_point: CrlDistributionPoint {
            uris: vec![uri.to_owned()],
        },
        scope: list.users_only.then_some(CrlScope::UserCertsOnly),
    });
    let params = CertificateRevocationListParams {
        this_update: at(list.made_seconds),
        next_update: at(list.due_seconds),
        crl_number: SerialNumber::from(list.number),
        issuing_distribution_point: point,
        revoked_certs: serials.into_iter().map(entry).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(issuer).expect("a CRL")
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn rsa_key() -> KeyPair {
    KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).expect("a key")
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn server() -> CertificateParams {
    let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    params
        .subject_alt_names
        .push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    params.extended_key_usages = vec![Usage::ServerAuth];
    params
}

fn device(uris: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = uris
        .iter()
        .map(|uri| SanType::URI((*uri).try_into().expect("an ASCII string")))
        .collect();
    params.extended_key_usages = vec![Usage::ClientAuth];
    params
}

/// Signs, and writes the certificate with what follows it in the chain.
fn sign(
    dir: &Path,
    name: &str,
    params: CertificateParams,
    issuer: &Authority,
    chain: &str,
) -> Identity {
    sign_with(dir, name, params, issuer, chain, &key())
}

fn sign_with(
    dir: &Path,
    name: &str,
    params: CertificateParams,
    issuer: &Authority,
    chain: &str,
    key: &KeyPair,
) -> Identity {
    let file = name.replace(['/', ':', ' '], "_");
    let identity = Identity {
        cert: dir.join(format!("{file}.pem")),
        key: dir.join(format!("{file}.key")),
    };
    let certificate = params.signed_by(key, issuer).expect("a certificate");
    fs::write(&identity.cert, certificate.pem() + chain).expect("a file");
    fs::write(&identity.key, key.serialize_pem()).expect("a file");
    identity
}
