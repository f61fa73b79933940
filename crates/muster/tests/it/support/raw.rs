//! Bytes on a TLS connection: what no polite client sends.

use std::{fs, io, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::server::AdminFile;

/// An answer of HTTP/1.1, as read until the end of the connection or of the time.
#[derive(Debug)]
pub struct RawAnswer {
    /// 0 when nothing came that begins like an answer.
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// A TLS client that trusts the install's own certificate alone and speaks one protocol.
pub fn client_config(admin: &AdminFile, protocol: &[u8]) -> Arc<ClientConfig> {
    let pem = fs::read(&admin.ca_file).expect("ca.pem is there");
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots
            .add(certificate.expect("ca.pem holds certificates"))
            .expect("it is a certificate");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder
        .expect("the versions are known")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Arc::new(config)
}

/// Opens a TLS connection to `host:port`.
pub async fn connect(admin: &AdminFile, address: &str, protocol: &[u8]) -> io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").expect("it is a name");
    TlsConnector::from(client_config(admin, protocol))
        .connect(name, socket)
        .await
}

/// Sends bytes to the admin listener as HTTP/1.1 and reads the answer. Say `Connection: close` in the bytes.
pub async fn send(admin: &AdminFile, bytes: &[u8]) -> RawAnswer {
    send_to(admin, admin.admin_address(), bytes).await
}

/// As [`send`], to a listener at `host:port`.
pub async fn send_to(admin: &AdminFile, address: &str, bytes: &[u8]) -> RawAnswer {
    let mut stream = connect(admin, address, b"http/1.1")
        .await
        .expect("the listener answers");
    let _ = stream.write_all(bytes).await;
    let _ = stream.flush().await;
    read_answer(&mut stream, Duration::from_secs(20)).await
}

/// A `GET` of an exact target with exact header lines.
pub async fn get(admin: &AdminFile, target: &str, headers: &[&str]) -> RawAnswer {
    let mut request = format!("GET {target} HTTP/1.1\r\nConnection: close\r\n");
    if !headers
        .iter()
        .any(|line| line.to_ascii_lowercase().starts_with("host:"))
    {
        request.push_str("Host: localhost\r\n");
    }
    for line in headers {
        request.push_str(line);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    send(admin, request.as_bytes()).await
}

/// Reads what comes until the connection ends or the time is up.
pub async fn read_answer(stream: &mut TlsStream<TcpStream>, patience: Duration) -> RawAnswer {
    let mut bytes = Vec::new();
    let _ = timeout(patience, stream.read_to_end(&mut bytes)).await;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0);
    RawAnswer {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    }
}
