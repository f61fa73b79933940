//! Bytes to a TPM and back, within a time and a size.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::codec::{HEAD_BYTES, MESSAGE_BYTES_MAX, Malformed, read_head};
use super::tcti::Tcti;

/// Longest time to open a TPM.
const OPEN_TIME_MAX: Duration = Duration::from_secs(5);
/// A software TPM that serves another program is asked again after this.
const BUSY_DELAY: Duration = Duration::from_millis(20);

/// Why bytes did not come and go.
#[derive(Debug)]
pub(super) enum TransportError {
    /// The system, or the time.
    Io(Error),
    /// The answer's size is impossible.
    Malformed(Malformed),
}

impl From<Error> for TransportError {
    fn from(error: Error) -> Self {
        Self::Io(error)
    }
}

/// An open TPM.
#[derive(Debug)]
pub(super) enum Transport {
    Device(File),
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Transport {
    /// Opens it.
    pub fn open(tcti: &Tcti) -> std::io::Result<Self> {
        match tcti {
            Tcti::Device(path) => open_device(path).map(Self::Device),
            Tcti::SwtpmTcp { host, port } => open_tcp(host, *port).map(Self::Tcp),
            Tcti::SwtpmUnix(path) => open_unix(path).map(Self::Unix),
        }
    }

    /// One command and its answer, or an error within the time.
    pub fn exchange(&mut self, command: &[u8], time_max: Duration) -> Result<Vec<u8>, TransportError> {
        let deadline = Deadline::after(time_max);
        self.write(command, &deadline)?;
        self.read(&deadline)
    }

    /// A device takes a command in one piece; a socket may take a part.
    fn write(&mut self, command: &[u8], deadline: &Deadline) -> Result<(), TransportError> {
        let mut rest = command;
        while !rest.is_empty() {
            deadline.wait(self.as_fd(), PollFlags::OUT)?;
            match self.stream().write(rest) {
                Ok(0) => return Err(Error::from(ErrorKind::WriteZero).into()),
                Ok(count) => rest = &rest[count..],
                Err(error) if is_again(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn read(&mut self, deadline: &Deadline) -> Result<Vec<u8>, TransportError> {
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        let (mut filled, mut wanted) = (0, HEAD_BYTES);
        while filled < wanted {
            deadline.wait(self.as_fd(), PollFlags::IN)?;
            match self.stream().read(&mut buffer[filled..]) {
                Ok(0) => return Err(Error::from(ErrorKind::UnexpectedEof).into()),
                Ok(count) => filled += count,
                Err(error) if is_again(&error) => {}
                Err(error) => return Err(error.into()),
            }
            if filled >= HEAD_BYTES {
                wanted = read_head(&buffer[..filled])
                    .map_err(TransportError::Malformed)?
                    .size;
            }
        }
        if filled > wanted {
            return Err(TransportError::Malformed(Malformed::TrailingBytes));
        }
        Ok(buffer[..filled].to_vec())
    }

    fn stream(&mut self) -> &mut dyn ReadWrite {
        match self {
            Self::Device(file) => file,
            Self::Tcp(stream) => stream,
            Self::Unix(stream) => stream,
        }
    }
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Device(file) => file.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

fn is_again(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// The end of the time that something may take.
struct Deadline {
    at: Instant,
    time_max: Duration,
}

impl Deadline {
    fn after(time_max: Duration) -> Self {
        let at = Instant::now() + time_max;
        Self { at, time_max }
    }

    fn left(&self) -> std::io::Result<Duration> {
        let left = self.at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let text = format!(
                "no answer within {:?}: does another program hold it?",
                self.time_max
            );
            return Err(Error::new(ErrorKind::TimedOut, text));
        }
        Ok(left)
    }

    /// Waits until the file can be read or written, or was closed at the other end.
    fn wait(&self, file: BorrowedFd<'_>, what: PollFlags) -> std::io::Result<()> {
        loop {
            let left = self.left()?;
            let left = Timespec::try_from(left).map_err(|_| Error::from(ErrorKind::InvalidInput))?;
            match poll(&mut [PollFd::from_borrowed_fd(file, what)], Some(&left)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Without blocking, the kernel works on a command in the background (Linux 5.0); an older one blocks in the write.
fn open_device(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
}

fn open_tcp(host: &str, port: u16) -> std::io::Result<TcpStream> {
    let mut last = Error::new(ErrorKind::NotFound, "the host has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, OPEN_TIME_MAX) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A full queue of a socket that serves one program at a time makes `connect` fail, not wait.
fn open_unix(path: &Path) -> std::io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let deadline = Deadline::after(OPEN_TIME_MAX);
    loop {
        match rustix::net::connect(&socket, &address) {
            Ok(()) => return Ok(UnixStream::from(socket)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {
                std::thread::sleep(BUSY_DELAY.min(deadline.left()?));
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    const TIME_MAX: Duration = Duration::from_millis(300);

    /// A TPM that answers every connection with these bytes and closes it, or keeps silent.
    fn exchange_with(answer: Option<Vec<u8>>) -> Result<Vec<u8>, TransportError> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("tpm.sock");
        let listener = UnixListener::bind(&path).expect("it listens");
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut command = [0; 12];
            stream.read_exact(&mut command).expect("a command");
            if let Some(answer) = answer {
                let _ = stream.write_all(&answer);
            } else {
                let _ = wait.recv();
            }
        });
        let mut transport = Transport::open(&Tcti::SwtpmUnix(path)).expect("it opens");
        let result = transport.exchange(&[0; 12], TIME_MAX);
        drop((transport, done));
        server.join().expect("the server ends");
        result
    }

    fn answer(size: u32, bytes: usize) -> Vec<u8> {
        let mut answer = [&[0x80, 0x01][..], &size.to_be_bytes(), &[0; 4]].concat();
        answer.resize(bytes, 0);
        answer
    }

    #[test]
    fn a_whole_answer_is_returned() {
        let whole = exchange_with(Some(answer(300, 300))).expect("an answer");
        assert_eq!(whole.len(), 300);
    }

    #[test]
    fn a_tpm_can_be_behind_a_port() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("it listens");
        let port = listener.local_addr().expect("an address").port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut command = [0; 12];
            stream.read_exact(&mut command).expect("a command");
            // In two parts, as a network may deliver it.
            let answer = answer(40, 40);
            stream.write_all(&answer[..7]).expect("it writes");
            stream.flush().expect("it flushes");
            std::thread::sleep(Duration::from_millis(5));
            stream.write_all(&answer[7..]).expect("it writes");
        });
        let tcti = Tcti::parse(&format!("swtpm:host=localhost,port={port}")).expect("it parses");
        let mut transport = Transport::open(&tcti).expect("it opens");
        let whole = transport.exchange(&[0; 12], Duration::from_secs(5));
        assert_eq!(whole.expect("an answer").len(), 40);
        server.join().expect("the server ends");
    }

    #[test]
    fn an_answer_that_ends_early_is_an_error() {
        for bytes in [0, 4, 10, 299] {
            let error = exchange_with(Some(answer(300, bytes))).expect_err("too short");
            assert!(matches!(error, TransportError::Io(_)), "{error:?}");
        }
    }

    #[test]
    fn an_answer_of_another_size_than_it_says_is_an_error() {
        for (size, bytes) in [(300, 301), (9, 10), (5000, 5000), (u32::MAX, 64)] {
            let error = exchange_with(Some(answer(size, bytes))).expect_err("a wrong size");
            assert!(matches!(error, TransportError::Malformed(_)), "{error:?}");
        }
    }

    #[test]
    fn a_silent_tpm_is_given_up() {
        let error = exchange_with(None).expect_err("no answer");
        assert!(
            matches!(&error, TransportError::Io(error) if error.kind() == ErrorKind::TimedOut),
            "{error:?}"
        );
    }

    #[test]
    fn an_absent_tpm_is_an_error() {
        for text in [
            "device:/nonexistent/tpm",
            "swtpm:path=/nonexistent/tpm",
            "swtpm:port=1",
        ] {
            let tcti = Tcti::parse(text).expect("it parses");
            assert!(Transport::open(&tcti).is_err(), "{text}");
        }
    }
}
