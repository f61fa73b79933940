//! One question to one witness (<https://c2sp.org/tlog-witness>).

use muster_model::TenantId;
use muster_trust::{
    note::{NoteSignature, SignedNote},
    witness::{AddCheckpoint, MAX_ANSWER_BYTES, SIZE_MEDIA_TYPE, canonical_number, read_answer},
};
use reqwest::{StatusCode, header};

use super::super::{proofs, tenant_scope};
use crate::{App, access::problem::Problem};

/// A witness that is at another size says so, and is asked once more from there.
const TRIES: usize = 2;

/// A checkpoint for one witness.
pub struct Ask {
    pub http: reqwest::Client,
    pub url: String,
    pub tenant: TenantId,
    pub size: u64,
    pub note: String,
    /// The size that it cosigned last, as far as we know.
    pub known: u64,
}

/// What came of it.
pub enum Asked {
    /// Its signature lines, not verified yet.
    Cosigned(Vec<NoteSignature>),
    Unreachable(String),
    /// It answered, and does not cosign for reasons of its own: it does not know the log, or is broken.
    Refused(String),
    /// It cosigned a tree larger than ours, of this size.
    Ahead(u64),
    /// It cosigned another tree of a size that ours has too.
    Fork(u64),
}

impl Ask {
    /// Asks, and asks again from the size that the witness says it knows.
    pub async fn run(mut self, app: &App) -> Asked {
        for _ in 0..TRIES {
            let body = match self.body(app).await {
                Ok(body) => body,
                Err(problem) => {
                    return Asked::Refused(format!("no consistency proof could be made: {problem}"));
                }
            };
            let url = format!("{}/add-checkpoint", self.url);
            let answer = match self.http.post(url).body(body).send().await {
                Ok(answer) => answer,
                Err(error) => return Asked::Unreachable(error.without_url().to_string()),
            };
            let status = answer.status();
            let is_size = answer
                .headers()
                .get(header::CONTENT_TYPE)
                .is_some_and(|kind| kind.as_bytes().starts_with(SIZE_MEDIA_TYPE.as_bytes()));
            let text = match read(answer).await {
                Ok(text) => text,
                Err(why) => return Asked::Unreachable(why),
            };
            match status {
                StatusCode::OK => {
                    return match read_answer(&text) {
                        Ok(lines) if !lines.is_empty() => Asked::Cosigned(lines),
                        Ok(_) => Asked::Refused("its answer has no signature line".to_owned()),
                        Err(error) => Asked::Refused(error.to_string()),
                    };
                }
                StatusCode::CONFLICT if is_size => {
                    let Some(known) = text.strip_suffix('\n').and_then(canonical_number) else {
                        return Asked::Refused("the size that it knows is not a number".to_owned());
                    };
                    if known > self.size {
                        return Asked::Ahead(known);
                    }
                    if known == self.known {
                        // It is where we said it is, and does not take the tree of the same size.
                        return Asked::Fork(known);
                    }
                    self.known = known;
                }
                StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY => return Asked::Fork(self.known),
                other => return Asked::Refused(format!("it answered {other}")),
            }
        }
        Asked::Refused(
            "the size that it knows changes while it is asked: does another server ask it?".to_owned(),
        )
    }

    async fn body(&self, app: &App) -> Result<String, Problem> {
        let (shared, tenant, known, size) = (app.clone(), self.tenant, self.known, self.size);
        let proof = app
            .db
            .read(tenant_scope(tenant), move |tx| {
                proofs::consistency(&shared, tx, tenant, known, size)
            })
            .await?;
        let note: SignedNote = self.note.parse().map_err(Problem::internal)?;
        Ok(AddCheckpoint {
            old_size: self.known,
            proof,
            note,
        }
        .to_string())
    }
}

async fn read(mut answer: reqwest::Response) -> Result<String, String> {
    let mut body = Vec::new();
    while let Some(part) = answer
        .chunk()
        .await
        .map_err(|error| error.without_url().to_string())?
    {
        if body.len() + part.len() > MAX_ANSWER_BYTES {
            return Err("its answer is longer than MAX_ANSWER_BYTES".to_owned());
        }
        body.extend_from_slice(&part);
    }
    String::from_utf8(body).map_err(|_| "its answer is not text".to_owned())
}
