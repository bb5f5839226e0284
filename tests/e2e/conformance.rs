//! Conformance, told by tools that know the standards: h2spec and sslyze.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio_rustls::TlsConnector;

use crate::harness::driver::tools;
use crate::harness::raw::{server_name, tls};
use crate::harness::{Gateway, Setup};

/// h2spec brings no client certificate: it speaks h2 without TLS to this, which does.
fn tunnel(gateway: &Gateway) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let (to, tls) = (gateway.address, tls(gateway, Some(&gateway.device("h2spec")), "h2"));
    // Ends with the process: h2spec opens a connection for each of its cases.
    std::thread::spawn(move || listener.incoming().flatten().for_each(|client| pass_on(client, to, tls.clone())));
    address
}

fn pass_on(client: TcpStream, to: SocketAddr, tls: Arc<rustls::ClientConfig>) {
    std::thread::spawn(move || {
        crate::harness::raw::block_on(async {
            client.set_nonblocking(true)?;
            let mut client = tokio::net::TcpStream::from_std(client)?;
            let gateway = tokio::net::TcpStream::connect(to).await?;
            gateway.set_nodelay(true)?;
            let mut gateway = TlsConnector::from(tls).connect(server_name(), gateway).await?;
            copy_bidirectional(&mut client, &mut gateway).await
        })
    });
}

#[test]
fn h2spec_finds_no_fault() {
    let gateway = Setup::new().without_limits().start();
    let address = tunnel(&gateway);
    let output = Command::new(tools().join("bin/h2spec"))
        .args(["--host", "127.0.0.1", "--port", &address.port().to_string()])
        .args(["--path", "/v1/telemetry", "--timeout", "5"])
        .output()
        .expect("`make tools` installs h2spec in target/tools/bin, or $TOOLS/bin");
    let said = String::from_utf8_lossy(&output.stdout);
    let summary = said.lines().rev().find(|line| line.contains("tests,")).expect("a summary");
    println!("{summary}");
    assert!(summary.contains(" 0 failed"), "{said}");
}

/// Mozilla's intermediate profile: versions, cipher suites, curves, certificate, and nothing that is known to be broken.
#[test]
fn sslyze_finds_it_compliant() {
    let gateway = Setup::new().without_limits().start();
    let device = gateway.device("sslyze");
    let output = Command::new(tools().join("sslyze/bin/sslyze"))
        .arg("--cert")
        .arg(&device.cert)
        .arg("--key")
        .arg(&device.key)
        .arg("--certinfo_ca_file")
        .arg(gateway.pki.ca())
        .args(["--mozilla_config", "intermediate", &format!("localhost:{}", gateway.address.port())])
        .output()
        .expect("`make tools` installs sslyze in target/tools/sslyze, or $TOOLS/sslyze");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("OK - Compliant"), "{said}");
}
