//! One command and its answer: framed, tried again where the TPM asks for it, and nothing left behind inside.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::codec::{HEAD_BYTES, Malformed, Reader, Writer, read_head};
use super::error::{TpmError, is_retried};
use super::ids::{CommandCode, Handle, TAG_NO_SESSIONS, TAG_SESSIONS, capability};
use super::tcti::Tcti;
use super::transport::{Transport, TransportError};

/// Longest time for one command.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(10);
/// Longest time for a command that makes a key: an RSA key takes a slow chip half a minute.
const KEY_TIME_MAX: Duration = Duration::from_secs(90);
/// How often a busy TPM is asked again.
const RETRIES_MAX: u32 = 8;
/// Delay before the first of them; each next one waits twice as long, 2.5 s together.
const RETRY_DELAY: Duration = Duration::from_millis(10);
/// Most leftovers of other programs that are cleared from a software TPM.
const LEFTOVERS_MAX: u32 = 16;

/// One TPM, which is open only while [`Tpm::with`] runs.
#[derive(Debug)]
pub struct Tpm {
    tcti: Tcti,
    in_use: Mutex<()>,
}

impl Tpm {
    /// Nothing is opened yet.
    pub fn new(tcti: Tcti) -> Self {
        let in_use = Mutex::new(());
        Self { tcti, in_use }
    }

    /// Which TPM it is.
    pub fn tcti(&self) -> &Tcti {
        &self.tcti
    }

    /// Opens the TPM, works with it, and closes it without leaving anything loaded. One caller at a time.
    pub fn with<T>(&self, work: impl FnOnce(&mut OpenTpm<'_>) -> Result<T, TpmError>) -> Result<T, TpmError> {
        // What a caller that panicked left loaded was flushed when its `OpenTpm` was dropped.
        let _in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut OpenTpm::open(&self.tcti)?)
    }
}

/// An open TPM. What is loaded is flushed when it is dropped.
#[derive(Debug)]
pub struct OpenTpm<'a> {
    tcti: &'a Tcti,
    transport: Transport,
    loaded: Vec<Handle>,
}

/// Who authorizes the use of a handle.
#[derive(Clone, Copy, Debug)]
pub(super) enum Authorization {
    /// The empty password: none of the keys and hierarchies in use has another.
    Password,
    /// A policy session.
    Policy(Handle),
}

/// One command.
pub(super) struct Command<'a> {
    pub code: CommandCode,
    pub handles: &'a [Handle],
    /// One for each of the first handles.
    pub authorizations: &'a [Authorization],
    pub parameters: Writer,
}

impl Command<'_> {
    fn to_bytes(&self) -> Vec<u8> {
        let mut body = Writer::default();
        for handle in self.handles {
            body = body.long(handle.0);
        }
        let mut area = Writer::default();
        for authorization in self.authorizations {
            let session = match authorization {
                Authorization::Password => Handle::PASSWORD,
                Authorization::Policy(session) => *session,
            };
            // No nonce; the session goes on; no password or HMAC.
            area = area.long(session.0).sized(&[]).byte(1).sized(&[]);
        }
        let area = area.finish();
        let (tag, area) = if area.is_empty() {
            (TAG_NO_SESSIONS, Vec::new())
        } else {
            // A few authorizations of nine bytes.
            let length = Writer::default().long(area.len() as u32).raw(&area);
            (TAG_SESSIONS, length.finish())
        };
        let (body, parameters) = (body.finish(), self.parameters.as_bytes());
        let size = HEAD_BYTES + body.len() + area.len() + parameters.len();
        let head = Writer::default().short(tag).long(size as u32);
        let head = head.long(self.code.code()).raw(&body).raw(&area);
        head.raw(parameters).finish()
    }
}

/// What a command gave.
pub(super) struct Answer {
    /// The object or session that it made, where it makes one.
    pub handle: Option<Handle>,
    /// The rest.
    pub parameters: Vec<u8>,
}

impl<'a> OpenTpm<'a> {
    fn open(tcti: &'a Tcti) -> Result<Self, TpmError> {
        let transport = Transport::open(tcti).map_err(|source| TpmError::Unavailable {
            tcti: tcti.to_string(),
            source,
        })?;
        let mut open = Self {
            tcti,
            transport,
            loaded: Vec::new(),
        };
        match tcti {
            Tcti::Device(_) => {}
            // No resource manager cleans up after a program that ended early, and only one program is served at a time:
            // whatever is loaded is a leftover, and there is room for three objects.
            Tcti::SwtpmTcp { .. } | Tcti::SwtpmUnix(_) => open.flush_leftovers()?,
        }
        Ok(open)
    }

    fn flush_leftovers(&mut self) -> Result<(), TpmError> {
        for first in [Handle::TRANSIENT_FIRST, Handle::LOADED_SESSION_FIRST] {
            for handle in self.handles(first, LEFTOVERS_MAX)? {
                self.flush_now(handle)?;
            }
        }
        Ok(())
    }

    /// Which TPM it is.
    pub fn tcti(&self) -> &Tcti {
        self.tcti
    }

    /// Sends a command and returns what it gave. A TPM that is busy is asked again, within bounds.
    pub(super) fn send(&mut self, command: &Command<'_>) -> Result<Answer, TpmError> {
        let bytes = command.to_bytes();
        let mut delay = RETRY_DELAY;
        for _ in 0..RETRIES_MAX {
            match self.send_once(command, &bytes) {
                Err(TpmError::Refused { code, .. }) if is_retried(code) => std::thread::sleep(delay),
                result => return result,
            }
            delay *= 2;
        }
        self.send_once(command, &bytes)
    }

    fn send_once(&mut self, command: &Command<'_>, bytes: &[u8]) -> Result<Answer, TpmError> {
        let time_max = if command.code.makes_keys() {
            KEY_TIME_MAX
        } else {
            COMMAND_TIME_MAX
        };
        let exchanged = self.transport.exchange(bytes, time_max);
        if exchanged.is_err() {
            // Nothing more is asked over a broken connection; what is loaded is flushed at the next one.
            self.loaded.clear();
        }
        let answer = exchanged.map_err(|error| match error {
            TransportError::Io(source) => TpmError::Gone {
                tcti: self.tcti.to_string(),
                command: command.code,
                source,
            },
            TransportError::Malformed(source) => malformed(command.code)(source),
        })?;
        let head = read_head(&answer).map_err(malformed(command.code))?;
        if head.code != 0 {
            let (command, code) = (command.code, head.code);
            return Err(TpmError::Refused { command, code });
        }
        let answer = read_answer(command, &answer).map_err(malformed(command.code))?;
        self.loaded.extend(answer.handle);
        Ok(answer)
    }

    /// Forgets an object or session.
    pub(super) fn flush(&mut self, handle: Handle) -> Result<(), TpmError> {
        self.loaded.retain(|loaded| *loaded != handle);
        self.flush_now(handle)
    }

    fn flush_now(&mut self, handle: Handle) -> Result<(), TpmError> {
        self.send(&Command {
            code: CommandCode::FlushContext,
            handles: &[],
            authorizations: &[],
            parameters: Writer::default().long(handle.0),
        })
        .map(|_| ())
    }

    /// As if the program ended now.
    #[cfg(test)]
    pub(super) fn leave_loaded(&mut self) {
        self.loaded.clear();
    }

    /// Handles in use, from this one on.
    pub(super) fn handles(&mut self, first: Handle, count_max: u32) -> Result<Vec<Handle>, TpmError> {
        self.capability(capability::HANDLES, first.0, count_max, |reader| {
            let count = reader.long()?;
            if count > count_max {
                return Err(Malformed::TooMany);
            }
            (0..count).map(|_| reader.long().map(Handle)).collect()
        })
    }
}

impl Drop for OpenTpm<'_> {
    fn drop(&mut self) {
        for handle in std::mem::take(&mut self.loaded).into_iter().rev() {
            // One that is gone already, or a TPM that is gone, has nothing left to forget.
            if self.flush_now(handle).is_err() {
                return;
            }
        }
    }
}

/// Says which command an invalid answer belongs to.
pub(super) fn malformed(command: CommandCode) -> impl Fn(Malformed) -> TpmError {
    move |source| TpmError::Malformed { command, source }
}

fn read_answer(command: &Command<'_>, bytes: &[u8]) -> Result<Answer, Malformed> {
    let mut reader = Reader::new(bytes);
    let tag = reader.short()?;
    reader.take(HEAD_BYTES - 2)?;
    let handle = match command.code {
        CommandCode::CreatePrimary | CommandCode::Load | CommandCode::StartAuthSession => {
            Some(Handle(reader.long()?))
        }
        CommandCode::ActivateCredential
        | CommandCode::Certify
        | CommandCode::NvRead
        | CommandCode::PolicySecret
        | CommandCode::Create
        | CommandCode::Quote
        | CommandCode::Sign
        | CommandCode::FlushContext
        | CommandCode::NvReadPublic
        | CommandCode::ReadPublic
        | CommandCode::GetCapability
        | CommandCode::PcrRead => None,
    };
    let parameters = match (tag, command.authorizations.is_empty()) {
        (TAG_NO_SESSIONS, true) => reader.rest(),
        // What follows the parameters acknowledges the authorizations; a password's acknowledgment says nothing.
        (TAG_SESSIONS, false) => {
            let size = usize::try_from(reader.long()?).map_err(|_| Malformed::Size)?;
            reader.take(size)?
        }
        _ => return Err(Malformed::Tag),
    };
    Ok(Answer {
        handle,
        parameters: parameters.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn command(code: CommandCode, authorizations: &'static [Authorization]) -> Command<'static> {
        Command {
            code,
            handles: &[Handle::OWNER],
            authorizations,
            parameters: Writer::default().short(7),
        }
    }

    #[test]
    fn a_command_is_framed_as_the_specification_says() {
        let bytes = command(CommandCode::Create, &[Authorization::Password]).to_bytes();
        let expected = "80020000001d00000153 40000001 00000009 40000009000001000 0 0007";
        let expected = hex::decode(expected.replace(' ', "")).expect("hex");
        assert_eq!(bytes, expected);
    }

    #[test]
    fn a_command_without_authorization_has_no_such_area() {
        let bytes = command(CommandCode::ReadPublic, &[]).to_bytes();
        let expected = hex::decode("80010000001000000173400000010007").expect("hex");
        assert_eq!(bytes, expected);
    }

    #[test]
    fn an_answer_with_the_wrong_tag_is_refused() {
        let answer = hex::decode("80010000000a00000000").expect("hex");
        let command = command(CommandCode::Create, &[Authorization::Password]);
        assert!(matches!(read_answer(&command, &answer), Err(Malformed::Tag)));
    }

    proptest! {
        #[test]
        fn random_answers_never_panic(tail in proptest::collection::vec(any::<u8>(), 0..64), sessions: bool) {
            let tag = if sessions { TAG_SESSIONS } else { TAG_NO_SESSIONS };
            let answer = Writer::default().short(tag).long(0).long(0).raw(&tail).finish();
            for code in [CommandCode::Load, CommandCode::Sign] {
                let _ = read_answer(&command(code, &[Authorization::Password]), &answer);
                let _ = read_answer(&command(code, &[]), &answer);
            }
        }
    }
}
