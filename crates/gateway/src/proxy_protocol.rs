//! The PROXY protocol, versions 1 and 2: who the client of a relayed connection is (HAProxy, `doc/proxy-protocol.txt`).
//!
//! The header comes before TLS and is proof of nothing. It is read only where it must come, from the addresses that
//! [`Sources`](crate::network::Sources) lists, so there is nothing to detect: a connection without it ends.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str,
};

use tokio::io::{AsyncRead, AsyncReadExt};

/// First bytes of version 2 (section 2.2).
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// First bytes of version 1 (section 2.1).
const V1_SIGNATURE: &[u8; 6] = b"PROXY ";
/// Signature, version and command, family and transport, length.
const V2_HEAD_BYTES: usize = 16;
/// Addresses and extensions of version 2; what section 2 says that a sender may rely on to fit into one segment.
pub const V2_REST_BYTES_MAX: usize = 536;
/// The line of version 1 with its end (section 2.1).
pub const V1_LINE_BYTES_MAX: usize = 107;

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// The client that the sender relays.
    Relayed(SocketAddr),
    /// The sender itself, such as its health check.
    Sender,
    /// Someone whose address is none of IPv4 and IPv6.
    Unknown,
}

/// Why a connection that must begin with a header is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyProtocolError {
    #[error("the connection does not begin with a PROXY protocol header")]
    NoHeader,
    #[error("the PROXY protocol line does not end within {V1_LINE_BYTES_MAX} bytes")]
    LineTooLong,
    #[error("the PROXY protocol line is not one of version 1")]
    LineMalformed,
    #[error("the PROXY protocol header is of another version than 1 and 2")]
    Version,
    #[error("the PROXY protocol header has an unknown command")]
    Command,
    #[error(
        "the PROXY protocol header is longer than {V2_REST_BYTES_MAX} bytes after its first {V2_HEAD_BYTES}"
    )]
    HeaderTooLong,
    #[error("the PROXY protocol header is too short for its addresses")]
    HeaderTooShort,
    #[error("the connection ended in its PROXY protocol header")]
    Ended,
}

/// What the bytes so far are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// The header has at least this many bytes more.
    Part(usize),
    Whole(Client),
}

/// Reads a header and not one byte after it: what follows belongs to TLS.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Client, ProxyProtocolError> {
    let mut bytes = Vec::with_capacity(V1_LINE_BYTES_MAX);
    loop {
        match look(&bytes)? {
            Seen::Whole(client) => return Ok(client),
            Seen::Part(more) => {
                let from = bytes.len();
                bytes.resize(from + more, 0);
                stream
                    .read_exact(&mut bytes[from..])
                    .await
                    .map_err(|_| ProxyProtocolError::Ended)?;
            }
        }
    }
}

fn look(bytes: &[u8]) -> Result<Seen, ProxyProtocolError> {
    // The shortest line of version 1 is longer than the signature of version 2.
    if bytes.len() < V2_SIGNATURE.len() {
        return Ok(Seen::Part(V2_SIGNATURE.len() - bytes.len()));
    }
    if bytes.starts_with(V1_SIGNATURE) {
        return look_v1(bytes);
    }
    if !bytes.starts_with(V2_SIGNATURE) {
        return Err(ProxyProtocolError::NoHeader);
    }
    let Some((head, rest)) = bytes.split_at_checked(V2_HEAD_BYTES) else {
        return Ok(Seen::Part(V2_HEAD_BYTES - bytes.len()));
    };
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    if length > V2_REST_BYTES_MAX {
        return Err(ProxyProtocolError::HeaderTooLong);
    }
    if rest.len() < length {
        return Ok(Seen::Part(length - rest.len()));
    }
    v2(head[12], head[13], &rest[..length]).map(Seen::Whole)
}

fn look_v1(bytes: &[u8]) -> Result<Seen, ProxyProtocolError> {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) if end < V1_LINE_BYTES_MAX => v1(&bytes[..=end]).map(Seen::Whole),
        None if bytes.len() < V1_LINE_BYTES_MAX => Ok(Seen::Part(1)),
        Some(_) | None => Err(ProxyProtocolError::LineTooLong),
    }
}

/// `PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\r\n`, with single spaces; after `UNKNOWN` nothing counts.
fn v1(line: &[u8]) -> Result<Client, ProxyProtocolError> {
    let malformed = ProxyProtocolError::LineMalformed;
    let line = line.strip_suffix(b"\r\n").ok_or(malformed)?;
    let line = str::from_utf8(line).map_err(|_| malformed)?;
    let mut words = line.split(' ').skip(1);
    let family = words.next().ok_or(malformed)?;
    if family == "UNKNOWN" {
        return Ok(Client::Unknown);
    }
    let mut word = || words.next().ok_or(malformed);
    let (source, target) = (word()?, word()?);
    let (source_port, target_port) = (word()?, word()?);
    if words.next().is_some() {
        return Err(malformed);
    }
    let source: IpAddr = source.parse().map_err(|_| malformed)?;
    let target: IpAddr = target.parse().map_err(|_| malformed)?;
    let as_said = match family {
        "TCP4" => source.is_ipv4() && target.is_ipv4(),
        "TCP6" => source.is_ipv6() && target.is_ipv6(),
        _ => false,
    };
    port(target_port)?;
    if as_said {
        Ok(Client::Relayed(SocketAddr::new(source, port(source_port)?)))
    } else {
        Err(malformed)
    }
}

fn port(text: &str) -> Result<u16, ProxyProtocolError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse()
        .ok()
        .filter(|_| digits)
        .ok_or(ProxyProtocolError::LineMalformed)
}

fn v2(version_and_command: u8, family_and_transport: u8, rest: &[u8]) -> Result<Client, ProxyProtocolError> {
    if version_and_command >> 4 != 2 {
        return Err(ProxyProtocolError::Version);
    }
    match version_and_command & 0x0f {
        0 => return Ok(Client::Sender),
        1 => {}
        _ => return Err(ProxyProtocolError::Command),
    }
    // Source address, target address, source port, target port; then extensions, which are not looked at.
    let too_short = ProxyProtocolError::HeaderTooShort;
    match family_and_transport >> 4 {
        1 => {
            let bytes: &[u8; 12] = rest.first_chunk().ok_or(too_short)?;
            let address = Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]);
            let port = u16::from_be_bytes([bytes[8], bytes[9]]);
            Ok(Client::Relayed(SocketAddr::new(address.into(), port)))
        }
        2 => {
            let bytes: &[u8; 36] = rest.first_chunk().ok_or(too_short)?;
            let address: &[u8; 16] = bytes.first_chunk().ok_or(too_short)?;
            let port = u16::from_be_bytes([bytes[32], bytes[33]]);
            Ok(Client::Relayed(SocketAddr::new(
                Ipv6Addr::from(*address).into(),
                port,
            )))
        }
        _ => Ok(Client::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime can be made").block_on(future)
    }

    /// What is read of these bytes, and how many of them are left.
    fn read_all(bytes: &[u8]) -> (Result<Client, ProxyProtocolError>, usize) {
        let mut left = bytes;
        let client = block_on(read(&mut left));
        (client, left.len())
    }

    fn version_2(first: u8, second: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("it is short").to_be_bytes();
        [V2_SIGNATURE, &[first, second][..], &length, rest].concat()
    }

    fn written(source: SocketAddr) -> Vec<u8> {
        let port = source.port().to_be_bytes();
        match source.ip() {
            IpAddr::V4(ip) => version_2(
                0x21,
                0x11,
                &[&ip.octets()[..], &[192, 0, 2, 1], &port, &[1, 187]].concat(),
            ),
            IpAddr::V6(ip) => version_2(
                0x21,
                0x21,
                &[&ip.octets()[..], &[0; 16], &port, &[1, 187]].concat(),
            ),
        }
    }

    #[test]
    fn lines_of_version_1_name_the_client_or_nobody() {
        let relayed = |text: &str| Ok(Client::Relayed(text.parse().expect("an address")));
        for (line, client) in [
            (
                "PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\r\n",
                relayed("192.0.2.7:56324"),
            ),
            (
                "PROXY TCP6 2001:db8::7 2001:db8::1 1 443\r\n",
                relayed("[2001:db8::7]:1"),
            ),
            ("PROXY UNKNOWN\r\n", Ok(Client::Unknown)),
            ("PROXY UNKNOWN ffff:f...f:ffff what ever\r\n", Ok(Client::Unknown)),
        ] {
            assert_eq!(
                read_all(&[line.as_bytes(), b"\x16\x03"].concat()),
                (client, 2),
                "{line}"
            );
        }
    }

    #[test]
    fn lines_that_are_not_of_version_1_are_refused() {
        for line in [
            "PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\n",
            "PROXY TCP4 192.0.2.7  192.0.2.1 56324 443\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 56324 443 \r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 56324 65536\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 +5 443\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 05 443\r\n",
            "PROXY TCP4 192.0.2.07 192.0.2.1 5 443\r\n",
            "PROXY TCP4 2001:db8::7 2001:db8::1 1 443\r\n",
            "PROXY TCP6 192.0.2.7 192.0.2.1 56324 443\r\n",
            "PROXY UDP4 192.0.2.7 192.0.2.1 56324 443\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 56324\r\n",
            "PROXY \r\n      ",
        ] {
            assert_eq!(
                read_all(line.as_bytes()).0,
                Err(ProxyProtocolError::LineMalformed),
                "{line:?}"
            );
        }
        let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'a'; 200]].concat();
        assert_eq!(
            read_all(&endless),
            (
                Err(ProxyProtocolError::LineTooLong),
                endless.len() - V1_LINE_BYTES_MAX
            )
        );
        assert_eq!(
            read_all(b"proxy TCP4 1.1.1.1 ").0,
            Err(ProxyProtocolError::NoHeader)
        );
        assert_eq!(
            read_all(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03ab").0,
            Err(ProxyProtocolError::NoHeader)
        );
    }

    #[test]
    fn headers_of_version_2_name_the_client_the_sender_or_nobody() {
        let address = [192, 0, 2, 7, 192, 0, 2, 1, 0xdc, 0x04, 1, 187];
        let extended = [&address[..], &[4, 0, 1, 0, 0xee, 0, 200], &[7; 200]].concat();
        let relayed = Ok(Client::Relayed("192.0.2.7:56324".parse().expect("an address")));
        for (bytes, client) in [
            (version_2(0x21, 0x11, &address), relayed),
            (version_2(0x21, 0x11, &extended), relayed),
            (version_2(0x20, 0x00, &[]), Ok(Client::Sender)),
            (version_2(0x20, 0x11, &address), Ok(Client::Sender)),
            (version_2(0x21, 0x00, &[9; 40]), Ok(Client::Unknown)),
            (version_2(0x21, 0x31, &[9; 216]), Ok(Client::Unknown)),
            (version_2(0x11, 0x11, &address), Err(ProxyProtocolError::Version)),
            (version_2(0x22, 0x11, &address), Err(ProxyProtocolError::Command)),
            (
                version_2(0x21, 0x11, &address[..11]),
                Err(ProxyProtocolError::HeaderTooShort),
            ),
            (
                version_2(0x21, 0x21, &[0; 35]),
                Err(ProxyProtocolError::HeaderTooShort),
            ),
            (version_2(0x20, 0, &[0; V2_REST_BYTES_MAX]), Ok(Client::Sender)),
        ] {
            assert_eq!(
                read_all(&[&bytes[..], b"\x16\x03"].concat()),
                (client, 2),
                "{bytes:?}"
            );
        }
        let long = version_2(0x20, 0, &[0; V2_REST_BYTES_MAX + 1]);
        assert_eq!(
            read_all(&long),
            (Err(ProxyProtocolError::HeaderTooLong), V2_REST_BYTES_MAX + 1)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_up_to_the_bound_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
            let (_, left) = read_all(&bytes);
            prop_assert!(bytes.len() - left <= V2_HEAD_BYTES + V2_REST_BYTES_MAX);
        }

        #[test]
        fn any_rest_after_a_signature_is_read_or_refused(
            v2 in any::<bool>(),
            bytes in prop::collection::vec(any::<u8>(), 0..700),
        ) {
            let signature = if v2 { &V2_SIGNATURE[..] } else { V1_SIGNATURE };
            let _ = read_all(&[signature, &bytes].concat());
        }

        #[test]
        fn what_is_written_is_read_and_nothing_after_it(ip in any::<IpAddr>(), port in any::<u16>(), after in 0_usize..50) {
            let source = SocketAddr::new(ip, port);
            let bytes = [written(source), vec![0; after]].concat();
            prop_assert_eq!(read_all(&bytes), (Ok(Client::Relayed(source)), after));
            let family = if ip.is_ipv4() { "TCP4 " } else { "TCP6 " };
            let line = format!("PROXY {family}{ip} {ip} {port} 443\r\n");
            prop_assert_eq!(read_all(line.as_bytes()), (Ok(Client::Relayed(source)), 0));
        }

        #[test]
        fn a_header_that_is_cut_ends_the_connection(ip in any::<IpAddr>(), cut in 0_usize..28) {
            let bytes = written(SocketAddr::new(ip, 7));
            prop_assert_eq!(read_all(&bytes[..cut.min(bytes.len() - 1)]).0, Err(ProxyProtocolError::Ended));
        }

        #[test]
        fn a_flipped_bit_names_another_client_or_is_refused(ip in any::<IpAddr>(), at in 0_usize..28, bit in 0_u8..8) {
            let mut bytes = written(SocketAddr::new(ip, 7));
            bytes[at] ^= 1 << bit;
            let (client, _) = read_all(&[&bytes[..], &[0; V2_REST_BYTES_MAX]].concat());
            if at < V2_SIGNATURE.len() {
                prop_assert_eq!(client, Err(ProxyProtocolError::NoHeader));
            }
        }
    }
}
