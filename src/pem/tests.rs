//! Files as people and templates make them: every BEGIN is read, or the error says where and why.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A section of that label around some bytes, in lines of 64, as OpenSSL writes it.
fn pem(label: &str, der: &[u8]) -> String {
    let base64 = BASE64.encode(der);
    let lines: Vec<&str> = base64
        .as_bytes()
        .chunks(64)
        .map(|line| str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

fn certificate(byte: u8) -> String {
    pem("CERTIFICATE", &[byte; 100])
}

/// The first byte of each section, and the line of its BEGIN.
fn read(file: &str) -> Result<Vec<(u8, usize)>, PemError> {
    let sections = sections(file.as_bytes())?;
    Ok(sections
        .iter()
        .map(|section| (section.der[0], section.line))
        .collect())
}

fn fault(file: impl AsRef<[u8]>) -> (usize, Fault) {
    let error = sections(file.as_ref())
        .map(|sections| sections.len())
        .unwrap_err();
    (error.line, error.fault)
}

#[test]
fn however_sections_are_joined_each_is_read() {
    let (one, two) = (certificate(1), certificate(2));
    for (file, second_line) in [
        (format!("{one}{two}"), 6),
        (format!("{}{two}", one.trim_end()), 5),
        (format!("{} \t{two}", one.trim_end()), 5),
        (format!("{one}\n\n{two}"), 8),
        (format!("{one}subject=CN = b\n{two}"), 7),
        (format!("{one}\t {two}"), 6),
        (format!("{one}{two}").replace('\n', "\r\n"), 6),
        (format!("{one}{two}").replace('\n', "\r"), 6),
        (format!("{one}{two}").replace('\n', "  \n  "), 6),
        (format!("{one}{}", two.trim_end()), 6),
    ] {
        let first_line = 1;
        assert_eq!(
            read(&file),
            Ok(vec![(1, first_line), (2, second_line)]),
            "{file:?}"
        );
    }
    assert_eq!(
        read(&format!("# CAs of the plant\n{one}")),
        Ok(vec![(1, 2)])
    );
    assert_eq!(read(""), Ok(Vec::new()));
    assert_eq!(
        read("CN = FRONT-END CERTIFICATE AUTHORITY\n"),
        Ok(Vec::new())
    );
}

#[test]
fn labels_have_kinds_and_unknown_ones_are_told_apart() {
    for (label, kind) in [
        ("CERTIFICATE", Kind::Certificate),
        ("X509 CERTIFICATE", Kind::Certificate),
        ("TRUSTED CERTIFICATE", Kind::TrustedCertificate),
        ("X509 CRL", Kind::Crl),
        ("PRIVATE KEY", Kind::Pkcs8Key),
        ("RSA PRIVATE KEY", Kind::Pkcs1Key),
        ("EC PRIVATE KEY", Kind::Sec1Key),
        ("EC PARAMETERS", Kind::EcParameters),
        ("DH PARAMETERS", Kind::Other),
        ("CERTIFICATE ", Kind::Other),
        ("certificate", Kind::Other),
    ] {
        let read = sections(pem(label, b"x").as_bytes()).unwrap();
        assert_eq!(read[0].kind, kind, "{label}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let good = certificate(1);
    let key = pem("PRIVATE KEY", &[7; 100]);
    let body = key.lines().nth(1).unwrap();
    for (expected, file) in [
        (Fault::NoLineBreaks, key.replace('\n', "")),
        (Fault::NoLineBreaks, key.replace('\n', " ")),
        (Fault::NoLineBreaks, key.replace("\n-----END", "-----END")),
        (Fault::EscapedLineBreaks, key.replace('\n', "\\n")),
        (Fault::EscapedLineBreaks, key.replace('\n', "\\r\\n")),
        (
            Fault::EscapedLineBreaks,
            format!("\"{}\"", key.replace('\n', "\\n")),
        ),
        (Fault::Encrypted, pem("ENCRYPTED PRIVATE KEY", b"x")),
        (
            Fault::Encrypted,
            format!(
                "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES\n\n{body}\n-----END RSA PRIVATE KEY-----\n"
            ),
        ),
        (Fault::BrokenMarker, format!("key: {key}")),
        (Fault::BrokenMarker, format!("\"{key}")),
        (
            Fault::BrokenMarker,
            key.replacen("-----BEGIN", "----BEGIN", 1),
        ),
        (
            Fault::BrokenMarker,
            key.replacen("-----BEGIN", "-----begin", 1),
        ),
        (
            Fault::BrokenMarker,
            key.replacen("-----BEGIN", "\u{2014}BEGIN", 1),
        ),
        (Fault::BrokenMarker, key.replacen("KEY-----", "KEY", 1)),
        (Fault::NoEnd, key.replace("-----END PRIVATE KEY-----\n", "")),
        (
            Fault::NoEnd,
            key.replace("END PRIVATE KEY", "END CERTIFICATE"),
        ),
        (
            Fault::NoBegin,
            key.replace("-----BEGIN PRIVATE KEY-----\n", ""),
        ),
        (Fault::NotBase64, key.replace(body, "{{ secret }}")),
        (Fault::NotBase64, key.replace("==", "=A")),
        (Fault::BrokenMarker, "-----BEGIN ".to_owned()),
        (Fault::Empty, pem("PRIVATE KEY", b"")),
    ] {
        let file = format!("{good}{file}");
        let (line, found) = fault(&file);
        assert_eq!(found, expected, "{file}");
        assert!((6..=file.lines().count()).contains(&line), "{line}: {file}");
    }
}

#[test]
fn a_byte_order_mark_is_told_and_der_is_known() {
    for mark in [&b"\xef\xbb\xbf"[..], b"\xff\xfe", b"\xfe\xff"] {
        assert_eq!(
            fault([mark, certificate(1).as_bytes()].concat()),
            (1, Fault::ByteOrderMark)
        );
    }
    assert!(is_der(&[0x30, 0x82, 1, 1]));
    assert!(!is_der(b"0 plants\n-----BEGIN CERTIFICATE-----\n"));
}

proptest! {
    /// Nothing of a file that cannot be read is in what is said of it.
    #[test]
    fn no_error_has_a_byte_of_the_file(key in vec(any::<u8>(), 48..200), cut in 0..120_usize, joint in "[ \\\\n\"'-]{0,3}") {
        let pem = pem("PRIVATE KEY", &key).replace('\n', &joint);
        let file = &pem[cut.min(pem.len())..];
        if let Err(error) = sections(file.as_bytes()) {
            let (told, debug) = (error.to_string(), format!("{error:?}"));
            for part in BASE64.encode(&key).as_bytes().chunks_exact(12) {
                let part = str::from_utf8(part).unwrap();
                prop_assert!(!told.contains(part) && !debug.contains(part), "{}", told);
            }
        }
    }

    #[test]
    fn what_is_written_is_read(ders in vec(vec(any::<u8>(), 1..300), 0..8), joint in "(\n|\r\n|\r| |\t)*") {
        let sections: String = ders.iter().map(|der| pem("X509 CRL", der).trim_end().to_owned() + &joint).collect();
        let read = super::sections(sections.as_bytes()).unwrap();
        let read: Vec<Vec<u8>> = read.into_iter().map(|section| section.der).collect();
        prop_assert_eq!(read, ders);
    }
}
