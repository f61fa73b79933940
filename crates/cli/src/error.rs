//! What can go wrong, said so that a person knows what to do.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The line asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// The server refused (RFC 9457).
    #[error("{}", .0.sentence())]
    Refused(Box<Problem>),
    /// The token endpoint refused (RFC 6749 section 5.2).
    #[error("signing in failed: {description} ({error})")]
    SignIn {
        /// The code, such as `invalid_client`.
        error: String,
        /// The server's sentence.
        description: String,
    },
    /// No answer came.
    #[error("{url} cannot be reached: {cause}")]
    Unreachable {
        /// Where the request went.
        url: String,
        /// The innermost causes, joined.
        cause: String,
    },
    /// An answer came that is not of this API.
    #[error("the server's answer is not understood: {0}")]
    Answer(String),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file of ours has unexpected content.
    #[error("{path}: {detail}")]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// No install is chosen.
    #[error("no install is chosen")]
    NoContext,
    /// The verb ran to its end, and the end is not the one asked for.
    #[error("{0}")]
    Failed(String),
    /// Files that people wrote are wrong, each place with what is wrong there.
    #[error("the files are not valid; nothing was sent")]
    Files(Vec<String>),
    /// What was compared differs, and the caller asked to be told by the exit code.
    #[error("the folder and the server differ")]
    Drift,
    /// The log is not what was signed.
    #[error("the log does not verify: {0}")]
    Log(String),
    /// Standard output is gone.
    #[error("the answer cannot be written: {0}")]
    Output(#[source] std::io::Error),
}

/// A refusal of the server, `application/problem+json`. Every member is optional: what stands before the server may answer
/// with less.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// The same sentence for every occurrence.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time.
    pub detail: String,
    /// The stable code.
    pub code: String,
    /// Names the request in the server's log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Fields that are wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// Seconds after which to try again, from `Retry-After`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
}

/// One wrong field of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FieldError {
    /// A setting's key, a row number, a field's name.
    pub field: String,
    /// A stable word.
    pub code: String,
    /// A sentence.
    pub detail: String,
}

impl Problem {
    /// Whether the same request is to be sent again after a while: what it needs is under way.
    pub fn is_for_now(&self) -> bool {
        self.code == "illegal_state" && self.retry_after_seconds.is_some()
    }

    fn sentence(&self) -> String {
        match (self.title.is_empty(), self.detail.is_empty()) {
            (false, false) => format!("{}: {}", self.title, self.detail),
            (false, true) => self.title.clone(),
            (true, false) => self.detail.clone(),
            (true, true) => format!("the server answered {}", self.status),
        }
    }
}

impl CliError {
    /// The program's exit code for this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::NoContext => 2,
            Self::Drift => 3,
            Self::Refused(_)
            | Self::SignIn { .. }
            | Self::Unreachable { .. }
            | Self::Answer(_)
            | Self::File { .. }
            | Self::Content { .. }
            | Self::Failed(_)
            | Self::Files(_)
            | Self::Log(_)
            | Self::Output(_) => 1,
        }
    }

    /// What to do now, where something general can be said.
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::NoContext => Some(
                "Give --admin-file FILE (the admin.json of the server's data folder), or store it once with \
                 `muster login --admin-file FILE`."
                    .to_owned(),
            ),
            Self::SignIn { error, .. } if error == "invalid_client" => {
                Some("The stored client is not valid any more. Run `muster login` again.".to_owned())
            }
            Self::Unreachable { .. } => Some(
                "Is `muster serve` running there, and is the CA file the one of this install?".to_owned(),
            ),
            Self::Refused(problem) => problem.advice(),
            Self::Log(_) => Some(
                "Keep the database and this output: somebody changed the log outside of the server. See \
                 docs/how-to/check-the-log.md."
                    .to_owned(),
            ),
            Self::SignIn { .. }
            | Self::Usage(_)
            | Self::Answer(_)
            | Self::File { .. }
            | Self::Content { .. }
            | Self::Failed(_)
            | Self::Files(_)
            | Self::Drift
            | Self::Output(_) => None,
        }
    }
}

impl Problem {
    fn advice(&self) -> Option<String> {
        let text = match self.code.as_str() {
            "unauthenticated" | "token_invalid" => "Run `muster login` again.",
            "insufficient_scope" => {
                "Use a client that holds the scope: `muster client create NAME --scope …` as an administrator."
            }
            "cursor_invalid" => "Start without --cursor.",
            "csv_invalid" => "Correct the rows, or make the good ones with --partial.",
            "enrollment_policy_invalid" => {
                "`muster enrollment policy show -o json` has the shape of a policy."
            }
            "conflict" => "Read what is stored now, and repeat the change.",
            "name_taken" => "Choose another name, or work with the one that is there.",
            "prune_required" => {
                "Put back what is missing, or plan with --prune to delete it, or with --partial to keep it."
            }
            "deletion_budget_exceeded" => "If all of it is meant: --deletion-budget N.",
            "version_exists" => "A version never changes: give the new content a new version.",
            "settings_invalid" => "`muster settings` lists every setting with its values.",
            "idempotency_key_reused" => "Leave out --idempotency-key, or use a fresh one for each request.",
            "rate_limited" | "unavailable" | "outcome_unknown" => match self.retry_after_seconds {
                Some(seconds) => return Some(format!("Try again in {seconds} s.")),
                None => "Try again shortly.",
            },
            "internal" => "The server's log has the cause under the request id.",
            _ => return None,
        };
        Some(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_read_with_and_without_its_members() {
        let full = r#"{"type":"/errors/invalid","title":"A value is not allowed here","status":400,"detail":"ttl",
            "code":"invalid","request_id":"r1","errors":[{"field":"a","code":"b","detail":"c"}],"more":1}"#;
        let problem: Problem = serde_json::from_str(full).expect("a problem");
        assert_eq!((problem.code.as_str(), problem.errors.len()), ("invalid", 1));
        assert_eq!(problem.sentence(), "A value is not allowed here: ttl");
        let bare: Problem = serde_json::from_str("{}").expect("an empty problem");
        assert_eq!(
            Problem { status: 502, ..bare }.sentence(),
            "the server answered 502"
        );
    }

    #[test]
    fn exit_codes_are_the_conventional_ones() {
        assert_eq!(CliError::Usage(String::new()).exit_code(), 2);
        assert_eq!(CliError::NoContext.exit_code(), 2);
        assert_eq!(CliError::Drift.exit_code(), 3);
        assert_eq!(CliError::Files(Vec::new()).exit_code(), 1);
        assert_eq!(CliError::Failed(String::new()).exit_code(), 1);
        assert_eq!(CliError::Refused(Box::default()).exit_code(), 1);
    }

    #[test]
    fn a_limit_says_when_to_come_back() {
        let problem = Problem {
            code: "rate_limited".to_owned(),
            retry_after_seconds: Some(60),
            ..Problem::default()
        };
        assert_eq!(problem.advice().as_deref(), Some("Try again in 60 s."));
    }
}
