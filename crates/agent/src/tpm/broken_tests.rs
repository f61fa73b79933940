//! A TPM that is broken or hostile: whatever it answers, this program gets an error or a signature that verifies.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::codec::{MESSAGE_BYTES_MAX, Writer, read_head};
use super::evidence::Announcement;
use super::ids::{TAG_NO_SESSIONS, TAG_SESSIONS};
use super::keys::TpmKey;
use super::swtpm::Maker;
use super::{Tcti, Tpm};

/// What is done to one answer.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip { at: usize, bit: u8 },
    Cut { at: usize },
    Refuse { code: u32 },
}

impl Damage {
    fn apply(self, mut answer: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Flip { at, bit } => {
                let at = at % answer.len();
                answer[at] ^= 1 << bit;
                answer
            }
            Self::Cut { at } => {
                answer.truncate(at % answer.len());
                answer
            }
            Self::Refuse { code } => {
                let head = Writer::default().short(TAG_NO_SESSIONS).long(10).long(code);
                head.finish()
            }
        }
    }
}

/// A program between the agent and a TPM.
struct Between {
    _folder: tempfile::TempDir,
    tcti: Tcti,
}

impl Between {
    /// Answers each command by what `connect` returns for its connection; an answer that is not whole ends the connection.
    fn new<A: FnMut(&[u8]) -> Vec<u8>>(connect: impl FnMut() -> A + Send + 'static) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("sock");
        let listener = UnixListener::bind(&path).expect("it listens");
        // Ends with the test's process.
        std::thread::spawn(move || serve(&listener, connect));
        Self {
            _folder: folder,
            tcti: Tcti::SwtpmUnix(path),
        }
    }

    fn tpm(&self) -> Arc<Tpm> {
        Arc::new(Tpm::new(self.tcti.clone()))
    }
}

fn serve<A: FnMut(&[u8]) -> Vec<u8>>(listener: &UnixListener, mut connect: impl FnMut() -> A) {
    while let Ok((mut stream, _)) = listener.accept() {
        let mut answer = connect();
        let mut command = vec![0; MESSAGE_BYTES_MAX];
        while let Ok(count) = stream.read(&mut command)
            && count > 0
        {
            let answer = answer(&command[..count]);
            let is_whole = read_head(&answer).is_ok_and(|head| head.size == answer.len());
            if stream.write_all(&answer).is_err() || !is_whole {
                break;
            }
        }
    }
}

/// One command to the TPM behind.
fn forward(stream: &mut UnixStream, command: &[u8]) -> Vec<u8> {
    stream.write_all(command).expect("it takes a command");
    let mut answer = vec![0; MESSAGE_BYTES_MAX];
    let count = stream.read(&mut answer).expect("it answers");
    answer.truncate(count);
    answer
}

/// Damages one answer of a real TPM, which is otherwise passed on as it is.
fn damaging(socket: PathBuf, which: usize, damage: Damage, answers: Arc<AtomicUsize>) -> Between {
    Between::new(move || {
        // A software TPM serves one connection at a time, so each of ours has one of its own behind it.
        let mut behind = UnixStream::connect(&socket).expect("it connects");
        let answers = Arc::clone(&answers);
        move |command: &[u8]| {
            let answer = forward(&mut behind, command);
            if answers.fetch_add(1, Ordering::SeqCst) == which {
                damage.apply(answer)
            } else {
                answer
            }
        }
    })
}

/// Everything an enrollment does with a TPM but for the server's part.
fn use_everything(tpm: Arc<Tpm>) {
    let Ok(key) = TpmKey::create(tpm) else { return };
    let _ = Announcement::make(&key);
    if let Ok(signature) = key.sign(b"message") {
        key.public()
            .verify(b"message", &signature)
            .expect("what is returned verifies");
    }
}

#[test]
fn a_damaged_answer_is_an_error_or_harmless() {
    let Some(maker) = Maker::new() else { return };
    let tpm = maker.tpm("device", &[]);
    let answers = Arc::new(AtomicUsize::new(0));
    let harmless = Damage::Flip { at: 0, bit: 0 };
    let between = damaging(
        tpm.socket().to_owned(),
        usize::MAX,
        harmless,
        Arc::clone(&answers),
    );
    use_everything(between.tpm());
    let count = answers.load(Ordering::SeqCst);
    assert!(count > 20, "{count} answers");
    drop(between);
    // Every answer once, each at another place.
    for which in 0..count {
        let place = which * 7919;
        let damage = match which % 3 {
            0 => Damage::Flip {
                at: place,
                bit: (which % 8) as u8,
            },
            1 => Damage::Cut { at: place },
            _ => Damage::Refuse {
                code: [0x101, 0x902, 0x921, 0x1DF, 0x18B][which % 5],
            },
        };
        println!("answer {which}: {damage:?}");
        let between = damaging(tpm.socket().to_owned(), which, damage, Arc::default());
        use_everything(between.tpm());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_tpm_that_answers_nonsense_is_an_error(bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..12)) {
        let next = Arc::new(AtomicUsize::new(0));
        let bodies = Arc::new(bodies);
        let answer = move |command: &[u8]| {
            let body = &bodies[next.fetch_add(1, Ordering::SeqCst) % bodies.len()];
            // The tag that belongs to the command, so that what follows is looked at.
            let tag = if command[1] == 2 { TAG_SESSIONS } else { TAG_NO_SESSIONS };
            let size = u32::try_from(10 + body.len()).expect("small");
            Writer::default().short(tag).long(size).long(0).raw(body).finish()
        };
        let between = Between::new(move || answer.clone());
        use_everything(between.tpm());
    }
}
