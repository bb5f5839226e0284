//! `forebay dev` in an empty folder: what it prints works as it stands, and what it made it keeps.

#[path = "support/program.rs"]
mod program;

use std::process::Command;

use forebay::internals::config::Raw;
use program::{Folder, Running, text};

/// On free ports, the rest as it comes.
fn dev(folder: &Folder) -> Command {
    let mut command = folder.command(env!("CARGO_BIN_EXE_forebay"));
    command
        .arg("dev")
        .env("FOREBAY_LISTEN", "127.0.0.1:0")
        .env("FOREBAY_ADMIN_LISTEN", "127.0.0.1:0");
    command
}

/// Runs the line in a shell.
fn shell(folder: &Folder, line: &str) -> String {
    text(
        &folder
            .command("sh")
            .args(["-c", line])
            .output()
            .expect("sh runs"),
    )
}

/// Everything in the files of the stream.
fn records(folder: &Folder) -> String {
    let files = folder
        .files()
        .into_iter()
        .filter(|(path, _)| path.extension().is_some_and(|ending| ending == "jsonl"));
    files
        .map(|(_, bytes)| String::from_utf8(bytes).expect("JSON lines"))
        .collect()
}

#[test]
fn the_printed_line_is_answered_with_204_and_its_reading_is_in_the_file() {
    let folder = Folder::new();
    let gateway = Running::start(dev(&folder));
    let answer = shell(&folder, &gateway.line("curl "));
    assert!(answer.starts_with("HTTP/2 204"), "{answer}");
    let watch = gateway.line("Watch it in a browser: ");
    let page = watch.rsplit(' ').next().expect("its address");
    let page = shell(&folder, &format!("curl -sSi --noproxy '*' {page}"));
    assert!(page.starts_with("HTTP/1.1 200 OK"), "{page}");
    assert!(page.contains("<title>Forebay</title>"), "{page}");
    let records = records(&folder);
    assert!(records.contains(r#""device":"dev-device""#), "{records}");
    assert!(
        records.contains(r#""payload":{"temperature":21.5}"#),
        "{records}"
    );
    assert_eq!(gateway.terminate().code(), Some(0));
}

#[test]
fn a_second_start_keeps_the_certificates() {
    let folder = Folder::new();
    let certificates = || {
        let of_pki = |path: &std::path::Path| path.starts_with(folder.path("certs"));
        folder
            .files()
            .into_iter()
            .filter(|(path, _)| of_pki(path))
            .collect::<Vec<_>>()
    };
    let first = Running::start(dev(&folder));
    first.line("curl ");
    assert_eq!(first.terminate().code(), Some(0));
    let made = certificates();
    assert_eq!(
        made.len(),
        7,
        "an authority with its CRL, a server and a device: {made:?}"
    );
    let second = Running::start(dev(&folder));
    let answer = shell(&folder, &second.line("curl "));
    assert!(answer.starts_with("HTTP/2 204"), "{answer}");
    assert!(made == certificates(), "a file has changed");
    assert_eq!(second.terminate().code(), Some(0));
}

#[test]
fn devices_made_by_pki_are_taken_under_their_ids_until_they_are_revoked() {
    let folder = Folder::new();
    let ids = ["plc-7", "urn:plant:7/a", "_x@y", "spiffe://plant/line/9"];
    let first = Running::start(dev(&folder));
    let line = first.line("curl ");
    let more = first.line("More devices: ");
    let (command, _) = more.split_once(" ID.").expect("what is to be typed");
    let command = command.trim_start_matches("More devices: ");
    shell(&folder, &format!("{command} {}", ids.join(" ")));
    let as_device = |line: &str, id: &str| {
        let name = id.replace('/', "+").replace(':', "=");
        shell(&folder, &line.replace("dev-device", &name))
    };
    for id in ids {
        let answer = as_device(&line, id);
        assert!(answer.starts_with("HTTP/2 204"), "{id}: {answer}");
        assert!(
            records(&folder).contains(&format!(r#""device":"{id}""#)),
            "{id}"
        );
    }
    assert_eq!(first.terminate().code(), Some(0));
    folder.succeed("forebay pki revoke --dir certs/dev plc-7");
    let second = Running::start(dev(&folder));
    let line = second.line("curl ");
    // In TLS 1.3 curl has sent its request when the gateway refuses: it must be told why all the same.
    let refusal = as_device(&line, "plc-7");
    assert!(
        refusal.contains("revoked") && !refusal.contains("HTTP/2"),
        "{refusal}"
    );
    assert!(as_device(&line, "_x@y").starts_with("HTTP/2 204"));
}

#[test]
fn variables_and_flags_win_over_what_dev_presets() {
    let folder = Folder::new();
    let mut command = dev(&folder);
    command
        .env("FOREBAY_FILE_DIR", "from-the-environment")
        .env("FOREBAY_STREAMS", "readings");
    command.args(["--listen", "127.0.0.2:0", "--file-dir", "from-a-flag"]);
    let gateway = Running::start(command);
    let line = gateway.line("curl ");
    assert!(line.contains("127.0.0.2"), "{line}");
    let answer = shell(&folder, &line);
    assert!(answer.starts_with("HTTP/2 204"), "{answer}");
    let file = gateway.line("It arrives in ");
    assert!(file.contains("from-a-flag/readings/"), "{file}");
    assert!(
        folder.path("from-a-flag/readings").is_dir()
            && !folder.path("from-the-environment").exists()
    );
}

#[test]
fn what_dev_presets_is_told_from_what_others_set() {
    let owned = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let environment = [owned("FOREBAY_SINK", "null")];
    let (mut raw, unknown) = Raw::new(environment, [owned("FOREBAY_LISTEN", "[::1]:1")]);
    assert!(unknown.is_empty());
    raw.preset(
        ["FOREBAY_SINK", "FOREBAY_LISTEN", "FOREBAY_TLS_CERT"]
            .map(|name| (name, "preset".to_owned())),
    );
    let told = raw.describe();
    for line in [
        "SINK=null # environment",
        "LISTEN=[::1]:1 # flag",
        "TLS_CERT=preset # forebay dev",
        "ACK=durable # default",
    ] {
        assert!(
            told.contains(&format!("FOREBAY_{line}\n")),
            "{line}: {told}"
        );
    }
}

#[test]
fn certificates_of_ones_own_are_used_and_none_are_made() {
    let folder = Folder::new();
    folder.succeed("forebay pki init --dir mine");
    folder.succeed("forebay pki server --dir mine --name localhost");
    let mut command = dev(&folder);
    command.args([
        "--tls-cert",
        "mine/server.pem",
        "--tls-key",
        "mine/server.key",
    ]);
    command.args([
        "--tls-client-ca",
        "mine/ca.pem",
        "--tls-crl",
        "mine/crl.pem",
    ]);
    let gateway = Running::start(command);
    let line = gateway.line("Serving on ");
    assert!(line.contains("certificates of yours"), "{line}");
    assert!(!folder.path("certs").exists());
}

#[test]
fn certificates_that_have_expired_are_named_with_what_to_do() {
    let folder = Folder::new();
    folder.succeed("forebay pki init --dir certs/dev");
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(["localhost".into()]).expect("a name");
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let certificate = params.self_signed(&key).expect("a certificate");
    std::fs::write(folder.path("certs/dev/server.pem"), certificate.pem()).expect("a file");
    let output = dev(&folder).output().expect("it ends by itself");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains(
            "certs/dev/server.pem has expired: run `forebay pki server --dir certs/dev --renew`"
        ),
        "{}",
        text(&output)
    );
}

/// The `sh` blocks of a section of certs/README.md.
fn scripts_of(section: &str) -> Vec<&'static str> {
    const README: &str = include_str!("../certs/README.md");
    let (_, text) = README
        .split_once(&format!("\n## {section}\n"))
        .expect("the section");
    let text = text.split("\n## ").next().expect("its text");
    text.split("```sh\n")
        .skip(1)
        .map(|block| block.split("```").next().expect("a block"))
        .collect()
}

#[test]
fn what_the_readme_makes_with_openssl_the_gateway_takes_and_refuses() {
    let folder = Folder::new();
    let scripts = scripts_of("OpenSSL");
    let [make, revoke] = scripts[..] else {
        panic!("one block makes, one revokes: {scripts:?}")
    };
    let run = |script: &str| {
        let output = folder
            .command("sh")
            .args(["-euc", script])
            .output()
            .expect("sh runs");
        assert!(output.status.success(), "{}", text(&output));
    };
    let serve = || {
        let mut command = dev(&folder);
        command.args(["--tls-cert", "server-chain.pem", "--tls-key", "server.key"]);
        command.args(["--tls-client-ca", "issuing.pem", "--tls-crl", "crl.pem"]);
        let gateway = Running::start(command);
        let line = gateway.line("Serving on 127.0.0.1:");
        let port: String = line["Serving on 127.0.0.1:".len()..]
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        (gateway, port)
    };
    let curl = "curl -sSi --noproxy '*' --cacert root.pem --cert press.pem --key press.key -d '{}'";
    run(make);
    let (first, port) = serve();
    let answer = shell(
        &folder,
        &format!("{curl} https://localhost:{port}/v1/telemetry"),
    );
    assert!(answer.starts_with("HTTP/2 204"), "{answer}");
    assert!(records(&folder).contains(r#""device":"urn:plant:7:press""#));
    assert_eq!(first.terminate().code(), Some(0));
    run(revoke);
    let (_second, port) = serve();
    let refusal = shell(
        &folder,
        &format!("{curl} https://localhost:{port}/v1/telemetry"),
    );
    assert!(
        refusal.contains("revoked") && !refusal.contains("HTTP/2"),
        "{refusal}"
    );
}
