//! TLS for tools that bring no client certificate: they speak in the clear to this, which does.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio_rustls::TlsConnector;

use super::Gateway;
use super::raw::{block_on, server_name, tls};

/// An address whose connections are passed on as those of `device`. Ends with the process: tools open a connection for
/// each of their cases.
pub fn tunnel(gateway: &Gateway, device: &str, protocol: &str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let (to, tls) = (
        gateway.address,
        tls(gateway, Some(&gateway.device(device)), protocol),
    );
    std::thread::spawn(move || {
        listener
            .incoming()
            .flatten()
            .for_each(|client| pass_on(client, to, tls.clone()))
    });
    address
}

fn pass_on(client: TcpStream, to: SocketAddr, tls: Arc<rustls::ClientConfig>) {
    std::thread::spawn(move || {
        block_on(async {
            client.set_nonblocking(true)?;
            let mut client = tokio::net::TcpStream::from_std(client)?;
            let gateway = tokio::net::TcpStream::connect(to).await?;
            gateway.set_nodelay(true)?;
            let mut gateway = TlsConnector::from(tls)
                .connect(server_name(), gateway)
                .await?;
            copy_bidirectional(&mut client, &mut gateway).await
        })
    });
}
